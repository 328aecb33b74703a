"""A form as a folder or an archive that can leave this machine: nothing in it points back here.

Beside the form's own files (weights, model card, task, policy) it holds:

    labels.json       the closed label set and the entity types
    prompt/           system.txt, chat_template.jinja and example.txt, a whole prompt as the model reads it
    licences.json     the licence chain
    provenance.json   the artifacts it was made from: ids, figures, versions
    sbom.cdx.json     a bill of materials (CycloneDX)
    SHA256SUMS        of every other file, for `sha256sum -c SHA256SUMS`
"""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, fsync_folder, seal
from tuneloop.config.exporting import ExportConfig
from tuneloop.errors import UsageError
from tuneloop.export.identity import BaseModel
from tuneloop.export.licences import Link, licence_chain, to_dicts
from tuneloop.export.sbom import bill_of_materials
from tuneloop.forms import FORM, ExportedForm, read_form
from tuneloop.models.chat import ChatFormat
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress

SUMS, BILL = "SHA256SUMS", "sbom.cdx.json"
ARCHIVE = ".tar.gz"
MANIFEST = "manifest.json"  # the artifact's own; its facts are in provenance.json, without folders of this machine
KEPT = ("kind", "id", "parents", "summary", "packages", "finished_at", "wall_time_s")
EXAMPLE = "a document"


def bundle_name(form: ExportedForm) -> str:
    """Return the name of a form's folder within a bundle."""
    return f"{form.run_id[:8]}-{form.name}"


def require_bundle_target(target: Path, names: Sequence[str]) -> None:
    """Refuse, before anything is made, a place where something stands already.

    Args: target: a folder, or a file that ends in .tar.gz; names: of the folders within it.
    Raises: UsageError: it is taken, or cannot be a folder.
    """
    taken = [target] if is_archive(target) else [target / name for name in names]
    for path in taken:
        if path.exists():
            hint = "Name another place, or remove this one first; a bundle never replaces anything."
            raise UsageError("there is something already", where=f"--bundle {path}", hint=hint)
    folder = target.absolute().parent if is_archive(target) else target.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"{there} is a file", where=f"--bundle {target}", hint="Name a folder, or a .tar.gz file.")


def is_archive(target: Path) -> bool:
    """Whether a bundle of this name is one file."""
    return target.name.endswith(ARCHIVE)


def write_bundle(
    target: Path, forms: Sequence[Artifact], settings: ExportConfig, store: ArtifactStore, progress: Progress
) -> list[Path]:
    """Write forms into the folder `target`, or the archive if it ends in .tar.gz; returns what was written.

    Each becomes a folder `RUN-FORM`. What is there is whole: everything is built beside its name and renamed.

    Raises: UsageError: something is there already; StorageError by way of OSError: the disk is full.
    """
    described = [(read_form(artifact), artifact) for artifact in forms]
    require_bundle_target(target, [bundle_name(form) for form, _ in described])
    folder = target.absolute().parent if is_archive(target) else target.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with _built_beside(folder, target.name) as building, progress.task("Bundling", len(described)) as advance:
        for form, artifact in described:
            _fill(building / bundle_name(form), form, artifact, settings, store)
            advance(1)
        if not is_archive(target):
            return [_publish(building / bundle_name(form), target / bundle_name(form)) for form, _ in described]
        packed = building / target.name
        _pack(packed, [building / bundle_name(form) for form, _ in described])
        return [_publish(packed, target)]


@contextmanager
def _built_beside(folder: Path, name: str) -> Iterator[Path]:
    building = folder / f".building-{name}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _publish(built: Path, final: Path) -> Path:
    built.rename(final)
    fsync_folder(final.parent)
    return final


def _fill(folder: Path, form: ExportedForm, artifact: Artifact, settings: ExportConfig, store: ArtifactStore) -> None:
    shutil.copytree(artifact.path, folder, ignore=lambda where, names: _left_out(where, names, artifact.path))
    content = json.loads((artifact.path / FORM).read_bytes())["base_model"]
    if form.name == "adapter":
        _name_base_for_others(folder / form.path.name / "adapter_config.json", content["name"])
    base = BaseModel(content["name"], content["name"], content["revision"], content["fingerprint"], content["licence"])
    chain = licence_chain(base, settings, bundle_name(form))
    task = TaskPrompt.from_dict(form.task)
    _write_json(folder / "labels.json", {"labels": list(task.labels), "entity_types": list(task.entity_types)})
    _write_json(folder / "licences.json", {"chain": to_dicts(chain)})
    _write_json(folder / "provenance.json", {"artifacts": _provenance(artifact, store)})
    merged = store.get(artifact.parents["merged"]) if form.path.is_file() else artifact
    _write_prompt(folder / "prompt", read_form(merged), task)
    _write_lists(folder, form, artifact, chain)


def _name_base_for_others(settings: Path, name: str) -> None:
    """Let an adapter name its base model as others know it, where it names a folder of this machine."""
    content = json.loads(settings.read_bytes())
    if Path(content["base_model_name_or_path"]).is_absolute():
        _write_json(settings, content | {"base_model_name_or_path": name})


def _left_out(where: str, names: list[str], root: Path) -> set[str]:
    return {MANIFEST} & set(names) if Path(where) == root else set()


def _write_prompt(folder: Path, form: ExportedForm, task: TaskPrompt) -> None:
    """Write the prompt as `form` writes it: a GGUF's tokenizer is that of the merged model, which it was made from."""
    from transformers import AutoTokenizer

    folder.mkdir()
    tokenizer: Any = AutoTokenizer.from_pretrained(form.path, local_files_only=True)
    chat = ChatFormat(tokenizer)
    texts = {"system.txt": task.system(), "example.txt": chat.render(task.system(), EXAMPLE)}
    if isinstance(chat.tokenizer.chat_template, str):
        texts["chat_template.jinja"] = chat.tokenizer.chat_template
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode("utf-8"))


def _provenance(artifact: Artifact, store: ArtifactStore) -> list[dict[str, Any]]:
    """Return what is known of the artifact and everything it was made from, each once, without this machine's paths."""
    found: dict[str, Artifact] = {}
    waiting = [artifact]
    while waiting:
        here = waiting.pop(0)
        if here.id not in found:
            found[here.id] = here
            waiting += [store.get(parent) for parent in here.parents.values()]
    return [{key: one.manifest[key] for key in KEPT if key in one.manifest} for one in found.values()]


def _write_lists(folder: Path, form: ExportedForm, artifact: Artifact, chain: list[Link]) -> None:
    """Write the bill of materials, then the checksums of everything, the bill included."""
    facts = {"form": form.name, "run": form.run_id, "base_model_fingerprint": form.base_model_fingerprint}
    bill = bill_of_materials(
        id=artifact.id,
        name=bundle_name(form),
        finished_at=artifact.manifest["finished_at"],
        files=seal(folder),
        chain=chain,
        facts=facts,
    )
    _write_json(folder / BILL, bill)
    sums = "".join(f"{entry['sha256']}  {name}\n" for name, entry in sorted(seal(folder).items()))
    (folder / SUMS).write_text(sums, encoding="utf-8")


def _pack(archive: Path, folders: Sequence[Path]) -> None:
    """Write a .tar.gz whose bytes depend on the files alone, not on who packed them when."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0) as packed,  # weights barely shrink
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for folder in folders:
            for path in [folder, *sorted(folder.rglob("*"))]:
                tar.add(path, path.relative_to(folder.parent).as_posix(), recursive=False, filter=anonymous)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
