"""Where parity results are kept: `parity.json` beside an exported form, or an artifact of kind `parity`.

A served URL may answer otherwise tomorrow, so its check is an artifact of its own with the time in its id.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, content_id
from tuneloop.export.parity.result import ParityResult
from tuneloop.export.parity.words import as_markdown
from tuneloop.records import Example

KIND = "parity"
PARITY, PAGE = "parity.json", "parity.md"
STAGE_VERSION = 1  # raise it when the same answers would be judged otherwise


def write_parity(folder: Path, results: Sequence[ParityResult]) -> Path:
    """Write `parity.json` and `parity.md` into a folder that is being built; returns the first."""
    path = folder / PARITY
    content = {"results": [result.to_dict() for result in results]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    (folder / PAGE).write_text(as_markdown(results), encoding="utf-8")
    return path


def read_parity(folder: Path) -> list[dict[str, Any]]:
    """Return the results that `write_parity` wrote, as `ParityResult.to_dict` gave them."""
    results: list[dict[str, Any]] = json.loads((folder / PARITY).read_bytes())["results"]
    return results


def record_parity(
    results: Sequence[ParityResult],
    items: Sequence[Example],
    parents: Mapping[str, str],
    store: ArtifactStore,
    where: Mapping[str, str],
) -> Artifact:
    """Keep a check as an artifact of its own.

    Args: parents: role → id (dataset, run and the exported forms that took part); where: name → URL of those that are
        served elsewhere, without keys.
    """
    inputs = {
        "stage_version": STAGE_VERSION,
        "parents": dict(parents),
        "items": content_id("items", {"ids": [item.id for item in items]}),
        "others": [result.other for result in results],
        "where": dict(where),
        "tolerances": [result.tolerance.to_dict() for result in results],
        "asked_at": datetime.now(UTC).isoformat(),
    }
    id = content_id(KIND, inputs)
    with store.build(KIND, id, parents=parents, inputs=inputs) as build:
        write_parity(build.path, results)
        beyond = [result.other for result in results if not result.is_within]
        build.summary.update({"items": len(items), "compared": len(results), "beyond_tolerance": beyond})
    return store.get(id)
