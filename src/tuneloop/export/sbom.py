"""A bundle's bill of materials in CycloneDX 1.6 JSON: its files, the models and data it stands on, and the packages.

Source: CycloneDX 1.6 (ECMA-424), component types machine-learning-model, data, file and library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packaging.requirements import Requirement

from tuneloop import __version__
from tuneloop.export.licences import Link, is_spdx

SPEC = "1.6"


def bill_of_materials(
    *,
    id: str,
    name: str,
    finished_at: str,
    files: Mapping[str, Mapping[str, Any]],
    chain: Iterable[Link],
    facts: Mapping[str, str],
) -> dict[str, Any]:
    """Return the document.

    Args: id: of the export's artifact; finished_at: ISO 8601; files: path → sha256 and size; chain: licences; facts:
        further properties of the model (run, form, …).
    """
    links = list(chain)
    model = f"model:{id}"
    base, data = (
        [link for link in links if link.what == "base model"],
        [link for link in links if link.what == "training data"],
    )
    parts = [_component("machine-learning-model", f"base:{n}", link) for n, link in enumerate(base)]
    parts += [_component("data", f"data:{n}", link) for n, link in enumerate(data)]
    components = [*parts, *map(_file, sorted(files), [files[path] for path in sorted(files)]), *_libraries()]
    subject = {
        "type": "machine-learning-model",
        "bom-ref": model,
        "name": name,
        "version": id,
        "properties": [{"name": f"tuneloop:{key}", "value": value} for key, value in sorted(facts.items())],
        **_licences(links[-1].licence),
    }
    tool = {"type": "application", "name": "tuneloop", "version": __version__}
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'tuneloop:export:{id}')}",
        "version": 1,
        "metadata": {"timestamp": finished_at, "tools": {"components": [tool]}, "component": subject},
        "components": components,
        "dependencies": [{"ref": model, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def packages() -> dict[str, str]:
    """Return name → version of tuneloop and every installed package that it needs, directly or not."""
    found: dict[str, str] = {}
    waiting = ["tuneloop"]
    while waiting:
        name = _normal(waiting.pop())
        if name in found or (installed := _installed(name)) is None:
            continue
        found[name] = installed.version
        needed = [Requirement(line) for line in installed.requires or ()]
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return dict(sorted(found.items()))


def _libraries() -> list[dict[str, Any]]:
    return [
        {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        for name, version in packages().items()
        for purl in [f"pkg:pypi/{name}@{version.replace('+', '%2B')}"]
    ]


def _file(path: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": entry["sha256"]}]
    size = [{"name": "tuneloop:size_bytes", "value": str(entry["size"])}]
    return {"type": "file", "bom-ref": f"file:{path}", "name": path, "hashes": hashes, "properties": size}


def _component(kind: str, ref: str, link: Link) -> dict[str, Any]:
    return {"type": kind, "bom-ref": ref, "name": link.name, **_licences(link.licence)}


def _licences(licence: str | None) -> dict[str, Any]:
    """Return the `licenses` key: an expression where SPDX knows it, else the name it goes by; nothing if unknown."""
    if licence is None:
        return {}
    return {"licenses": [{"expression": licence}] if is_spdx(licence) else [{"license": {"name": licence}}]}


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
