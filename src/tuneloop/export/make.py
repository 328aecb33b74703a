"""The weights of one form, made once and kept until they are proven.

They are an artifact of their own, of kind `unproven`: a form that is refused need not be made again when it is allowed
after all, and neither when only its tolerance, its calibration or its card change. What is exported is linked from
there, so it takes the disk's space once.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, content_id
from tuneloop.environments import LLM_COMPRESSOR, Environment, find_environment
from tuneloop.errors import GateRefused
from tuneloop.export.adapter import write_adapter
from tuneloop.export.agreement import Spoken, compare, listen
from tuneloop.export.items import parity_items
from tuneloop.export.merge import merge
from tuneloop.export.source import Source
from tuneloop.forms import KIND, FormName, part_of, read_form
from tuneloop.models.chat import ChatFormat
from tuneloop.models.load import EMBEDDED, load_model
from tuneloop.progress import Progress

UNPROVEN = "unproven"
STAGE_VERSION = 1  # raise it when the same inputs would give other weights
EMBEDDED_TYPE = "Q4_1"  # of the file that the embedded base model comes as
PROMPTS = 4  # whose logits are compared before a merged model is believed


def needs_merged(form: FormName) -> bool:
    """Whether a form is made from the merged model."""
    return form not in ("adapter", "merged")


def made_id(source: Source, form: FormName) -> str:
    """Return the id that everything which shapes the weights of a form determines."""
    return content_id(UNPROVEN, _inputs(source, form))


def make(source: Source, form: FormName, merged: Path | None, store: ArtifactStore, progress: Progress) -> Artifact:
    """Return an artifact that holds the form's weights: one that is there already, or a new, unproven one.

    Args: merged: the folder of the merged model, for forms that are made from it.
    Raises: GateRefused: merged weights do not say what base and adapter say; whatever stands in the form's way.
    """
    inputs = _inputs(source, form)
    id = content_id(UNPROVEN, inputs)
    if (found := store.find(UNPROVEN, id)) is not None:
        progress.say(f"{form}: made before ({id}), and not exported yet.")
        return found
    exported = (artifact for artifact in store if artifact.kind == KIND and artifact.manifest["inputs"]["made"] == id)
    if (reused := next(exported, None)) is not None:
        return reused
    parents = {"run": source.run.id}
    with store.build(UNPROVEN, id, parents=parents, inputs=inputs, seed=source.config.export.seed) as build:
        build.summary.update(_write(source, form, merged, build.path / part_of(form), progress))
        build.summary["form"] = form
    return store.get(id)


def require_possible(source: Source, form: FormName) -> None:
    """Find out before long work begins that a form cannot be made here.

    Raises: UsageError: a package or an environment is missing; the hint says how to get it.
    """
    if form in ("int8", "gptq-4bit", "awq-4bit"):
        from tuneloop.export.quantize import require_quantizable

        _compressor(source)
        require_quantizable(form)


def link(made: Artifact, form: FormName, folder: Path) -> None:
    """Put the weights of `made` into `folder` without copying them, where the file system can do that."""
    part = part_of(form)
    if (made.path / part).is_file():
        _link_or_copy(str(made.path / part), str(folder / part))
    else:
        shutil.copytree(made.path / part, folder / part, copy_function=_link_or_copy)


def figures_of(made: Artifact) -> dict[str, Any]:
    """Return what was noted when the weights in `made` were made, whether they are unproven or exported already."""
    return dict(made.summary) if made.kind == UNPROVEN else dict(read_form(made).made)


def forget(made: Artifact) -> None:
    """Remove an unproven artifact whose weights are exported now."""
    if made.kind == UNPROVEN:
        shutil.rmtree(made.path)


def _inputs(source: Source, form: FormName) -> dict[str, Any]:
    settings = source.config.export
    inputs: dict[str, Any] = {
        "stage_version": STAGE_VERSION,
        "run": source.run.id,
        "form": form,
        "base_model": source.base.fingerprint,
    }
    if form == "adapter":
        return inputs | {"loadable": source.base.loadable, "revision": source.base.revision}
    inputs |= settings.model_dump(mode="json", include={"dtype", "max_shard_size"})
    if form == "merged" or form.startswith("gguf"):
        return inputs
    inputs["max_tokens"] = source.config.model.max_tokens  # where the calibration documents are cut
    quantised = {"calibration_examples", "seed"} | (set() if form == "int8" else {"group_size"})
    return inputs | settings.model_dump(mode="json", include=quantised)


def _write(source: Source, form: FormName, merged: Path | None, target: Path, progress: Progress) -> dict[str, Any]:
    """Write the weights of a form to `target`; returns the figures to remember."""
    if form == "adapter":
        write_adapter(source.adapter, target, source.base, _chat(source), source.base_folder)
        return {}
    if form == "merged":
        return _write_merged(source, target, progress)
    if merged is None:
        raise ValueError(f"{form} is made from the merged model, and none was given")
    writer = _write_gguf if form.startswith("gguf") else _write_quantised
    return writer(source, form, merged, target, progress)


def _write_merged(source: Source, target: Path, progress: Progress) -> dict[str, Any]:
    """Merge, and compare the logits of what can be read back from disk with those of base and adapter."""
    config, settings = source.config, source.config.export
    documents = [item.text for item in parity_items(source.dataset, settings)[:PROMPTS]]
    system, limit = source.task.system(), config.model.max_tokens - config.evaluate.max_new_tokens

    def heard(folder: Path | None) -> Spoken:  # one model in memory at a time
        other = {} if folder is None else {"base_model": str(folder), "revision": None}
        model = config.model.model_copy(update=other)
        return listen(load_model(model, progress, None if folder else source.adapter), system, documents, limit)

    reference = heard(None)
    done = merge(
        config.model, source.adapter, target,
        dtype=settings.dtype, max_shard_size=settings.max_shard_size, progress=progress,
    )  # fmt: skip
    agreement = compare(reference, heard(target), done.dtype)
    if not agreement.is_within:
        raise GateRefused(
            f"its logits differ from those of base model and adapter by {agreement.relative_difference:.3g} of their "
            f"spread on {agreement.prompts} prompts; {agreement.limit:g} is what {done.dtype} explains",
            where="merged",
            hint="Set export.dtype=float32 if the base model is kept in half precision; else please report it.",
        )
    return {
        "layers": done.layers,
        "dtype": done.dtype,
        "untied": done.is_untied,
        "logits_difference": float(f"{agreement.relative_difference:.3g}"),
    }


def _write_gguf(source: Source, form: FormName, merged: Path, target: Path, progress: Progress) -> dict[str, Any]:
    from tuneloop.export.gguf import GgufType, convert

    kinds: dict[FormName, GgufType] = {"gguf-f16": "f16", "gguf-q8_0": "q8_0", "gguf-q4_k_m": "q4_k_m"}
    report = convert(merged, target, kinds[form], progress=progress)
    rounded_to = EMBEDDED_TYPE if source.config.model.base_model == EMBEDDED else None
    return report.to_dict() | {"base_rounded_to": rounded_to}


def _write_quantised(source: Source, form: FormName, merged: Path, target: Path, progress: Progress) -> dict[str, Any]:
    from tuneloop.export.quantize import calibration_rows, quantize

    config, settings = source.config, source.config.export
    rows = calibration_rows(
        source.dataset.split("train"), source.task, _chat(source),
        count=settings.calibration_examples, max_tokens=config.model.max_tokens, seed=settings.seed,
    )  # fmt: skip
    done = quantize(
        merged, target, form, rows, _compressor(source), progress,
        group_size=settings.group_size, seed=settings.seed, trust_remote_code=config.model.trust_remote_code,
    )  # fmt: skip
    return done.to_dict()


def _compressor(source: Source) -> Environment:
    return find_environment(LLM_COMPRESSOR, source.config.environments.python_of(LLM_COMPRESSOR))


def _chat(source: Source) -> ChatFormat:
    from transformers import AutoTokenizer

    trust = source.config.model.trust_remote_code
    tokenizer: Any = AutoTokenizer.from_pretrained(source.base_folder, trust_remote_code=trust, local_files_only=True)
    return ChatFormat(tokenizer)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # no hard links on this file system
        shutil.copyfile(source, target)
    return target
