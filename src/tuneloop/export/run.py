"""A run in, its exported forms out: one artifact of kind `export` for each, and only where it answers like the run.

Forms are made in order, the merged model before those that are made from it. One that is beyond its tolerance is
refused: its weights stay where they are, nothing is exported, and the other forms go on.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, content_id
from tuneloop.errors import GateRefused
from tuneloop.export.card import write_card
from tuneloop.export.make import figures_of, forget, link, made_id, make, needs_merged, require_possible
from tuneloop.export.parity.result import ParityResult
from tuneloop.export.parity.stored import write_parity
from tuneloop.export.proof import Reference
from tuneloop.export.source import Source
from tuneloop.forms import (
    FORM,
    FORMS,
    KIND,
    MODEL,
    POLICY,
    SCHEMA,
    TASK,
    ExportedForm,
    FormName,
    engine_of,
    form_in,
    part_of,
    read_form,
)
from tuneloop.progress import Progress

STAGE_VERSION = 1  # raise it when the same inputs would give another folder


@dataclass(frozen=True)
class Exported:
    """What became of one form: the artifact (None where it was refused), and whether it was there already.

    `parity` is what the comparison with the original found (`ParityResult.to_dict`), None where it did not come to it.
    """

    form: FormName
    artifact: Artifact | None
    parity: Mapping[str, Any] | None = None
    is_skipped: bool = False
    refusal: GateRefused | None = None


def export(
    source: Source,
    forms: Iterable[FormName],
    store: ArtifactStore,
    progress: Progress,
    *,
    allow_beyond_tolerance: Collection[str] = (),
) -> list[Exported]:
    """Export a run in each of these forms (and as `merged`, where one of them is made from it), or find it done.

    Args: allow_beyond_tolerance: forms that are exported even where they answer differently, which is recorded.
    Raises: what stands in the way of making or loading a form; a refusal is part of the result instead.
    """
    wanted = set(forms)
    if any(needs_merged(form) for form in wanted):
        wanted.add("merged")
    for form in wanted:
        if store.find(KIND, export_id(source, form)) is None:
            require_possible(source, form)
    done: dict[FormName, Exported] = {}
    reference = Reference(source, progress)
    for form in (name for name in FORMS if name in wanted):
        done[form] = _export(source, form, done.get("merged"), reference, store, progress, allow_beyond_tolerance)
    return list(done.values())


def export_id(source: Source, form: FormName) -> str:
    """Return the id of the artifact that a form of this source has, or will have."""
    return content_id(KIND, _inputs(source, form))


def _export(
    source: Source,
    form: FormName,
    merged: Exported | None,
    reference: Reference,
    store: ArtifactStore,
    progress: Progress,
    allowed: Collection[str],
) -> Exported:
    id = export_id(source, form)
    if (artifact := store.find(KIND, id)) is not None:
        return Exported(form, artifact, read_form(artifact).parity, is_skipped=True)
    if needs_merged(form) and (merged is None or merged.artifact is None):
        return Exported(form, None, refusal=_without_merged(form))
    from_merged = merged.artifact if merged is not None and needs_merged(form) else None
    try:
        made = make(source, form, None if from_merged is None else from_merged.path / MODEL, store, progress)
    except GateRefused as refusal:
        return Exported(form, None, refusal=refusal)
    parity = reference.prove(_form(source, form, made))
    if not parity.is_within and form not in allowed:
        return Exported(form, None, parity=parity.to_dict(), refusal=_refused(form, made, parity.refusal()))
    parents = {**source.parents} | ({} if from_merged is None else {"merged": from_merged.id})
    with store.build(KIND, id, parents=parents, inputs=_inputs(source, form), seed=source.config.export.seed) as build:
        _write(source, form, made, parity, build.path)
        build.summary.update(_summary(form, parity, build.path))
    forget(made)
    return Exported(form, store.get(id), parity=parity.to_dict())


def _inputs(source: Source, form: FormName) -> dict[str, Any]:
    settings = source.config.export
    return {
        "stage_version": STAGE_VERSION,
        "form": form,
        "made": made_id(source, form),
        "parents": dict(source.parents),
        "parity": settings.model_dump(mode="json", include={"parity_examples", "seed"}),
        "tolerance": settings.tolerances.of(form).model_dump(mode="json"),
        "licences": settings.model_dump(mode="json", include={"licence", "data_licences"}),
    }


def _form(source: Source, form: FormName, made: Artifact) -> ExportedForm:
    return ExportedForm(
        name=form,
        path=made.path / part_of(form),
        engine=engine_of(form),
        run_id=source.run.id,
        base_model_fingerprint=source.base.fingerprint,
        task=source.task.to_dict(),
        base_model=source.base.title,
        made=figures_of(made),
    )


def _write(source: Source, form: FormName, made: Artifact, parity: ParityResult, folder: Path) -> None:
    """Write everything that belongs to a form into the folder of its artifact."""
    link(made, form, folder)
    content = {
        "schema": SCHEMA,
        "form": form,
        "engine": engine_of(form),
        "run": source.run.id,
        "base_model": source.base.to_dict(),
        "made": figures_of(made),
        "parity": parity.to_dict(),
        "allowed_beyond_tolerance": not parity.is_within,
    }
    _write_json(folder / TASK, source.task.to_dict())
    if (policy := source.policy) is not None:
        _write_json(folder / POLICY, policy)
    _write_json(folder / FORM, content)
    write_parity(folder, [parity])
    write_card(folder, source, form_in(folder))


def _summary(form: FormName, parity: ParityResult, folder: Path) -> dict[str, Any]:
    part = folder / part_of(form)
    files = [part] if part.is_file() else [path for path in part.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return {
        "form": form,
        "size_mib": round(size / 2**20, 1),
        "parity": parity.sentence,
        "allowed_beyond_tolerance": not parity.is_within,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _refused(form: FormName, made: Artifact, refusal: GateRefused) -> GateRefused:
    return GateRefused(
        refusal.message,
        where=f"{form}, kept in {made.path}",
        hint=f"{refusal.hint} `tuneloop export {form} --allow-beyond-tolerance {form}` exports it all the same, and "
        "records that.",
    )


def _without_merged(form: FormName) -> GateRefused:
    return GateRefused(
        "it is made from the merged model, which was refused",
        where=form,
        hint="See what is said of merged; nothing is built on a model that answers differently.",
    )
