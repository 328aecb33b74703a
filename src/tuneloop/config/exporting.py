"""The `export` section: in which forms a model leaves the store, and how like the original each must be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tuneloop.config.section import Positive, Section, Seed, Word
from tuneloop.forms import FormName

Share = Annotated[float, Field(ge=0, le=1)]


class ToleranceConfig(Section):
    """How far a form may answer differently from the model that was evaluated; null leaves a figure unjudged."""

    min_agreement: Share
    """Smallest share of items that get the same label. Higher refuses more forms."""
    max_accuracy_loss: Share | None = None
    """By how much the accuracy on these items may be lower: 0.01 is one percentage point."""
    max_median_probability_difference: Share | None = None
    """Largest median difference of the probabilities. It catches what labels hide: calibration and routes depend on
    probabilities."""
    max_median_score_difference: Annotated[float, Field(ge=0)] | None = None
    """Largest median difference of an item's label log-scores, in nats: a defect shows there before any answer changes.
    Half precision and other kernels move them by a few hundredths."""
    min_entity_agreement: Share | None = None
    """Smallest F1 of the extracted entities, with the original's as the truth."""


class TolerancesConfig(Section):
    """What each class of forms must keep to; beyond it a form is refused, unless it is allowed by name.

    Chat template and tokens have to be equal in every class.
    """

    exact: ToleranceConfig = ToleranceConfig(
        min_agreement=0.995,
        max_accuracy_loss=0.005,
        max_median_probability_difference=0.01,
        max_median_score_difference=0.5,
        min_entity_agreement=0.98,
    )
    """adapter, merged and gguf-f16: they differ from the original by rounding alone."""
    eight_bit: ToleranceConfig = ToleranceConfig(min_agreement=0.98, max_accuracy_loss=0.02, min_entity_agreement=0.95)
    """int8 and gguf-q8_0: rarely another answer."""
    four_bit: ToleranceConfig = ToleranceConfig(min_agreement=0.95, max_accuracy_loss=0.02, min_entity_agreement=0.9)
    """gptq-4bit, awq-4bit and gguf-q4_k_m: small models lose more than large ones."""

    def of(self, form: FormName) -> ToleranceConfig:
        """Return the tolerance of a form."""
        if form in ("adapter", "merged", "gguf-f16"):
            return self.exact
        return self.eight_bit if form in ("int8", "gguf-q8_0") else self.four_bit


class ExportConfig(Section):
    """In which forms the tuned model is exported, and what each must show."""

    forms: Annotated[list[FormName], Field(min_length=1)] = ["adapter", "merged"]
    """What `tuneloop export` makes when no form is named. An adapter is small and needs its base model; merged runs
    anywhere; the others are smaller or faster, and answer a little differently."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the merged weights; `auto` is the base model's own. Halving it halves the folder and rounds the adapter."""
    max_shard_size: Annotated[str, Field(pattern=r"^[1-9][0-9]*(MB|GB)$")] = "4GB"
    """Largest file of weights; smaller ones are easier to upload and to repeat."""
    parity_examples: Positive = 200
    """Held-out documents that every form answers beside the original. More find rarer differences, and take longer:
    with 200, a form without a single difference agrees on at least 98.1 % (95 % confidence)."""
    tolerances: TolerancesConfig = TolerancesConfig()
    calibration_examples: Positive = 256
    """Training documents on which quantisation chooses its scales. More are slower, and help little beyond 512."""
    group_size: Literal[32, 64, 128] = 128
    """Weights that share a scale in gptq-4bit and awq-4bit: fewer are more exact and take more room. A smaller one is
    taken where it does not divide a layer's width."""
    seed: Seed = 13
    """Decides which documents are taken for parity and for quantisation."""
    licence: Word | None = None
    """The licence of what is exported, in SPDX form (`Apache-2.0`); None: the base model's, where it is known."""
    data_licences: dict[Word, Word] = {}
    """Training data and their licences for the bundle's licence chain: `{claims archive: LicenseRef-internal}`."""
