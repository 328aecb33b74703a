"""Open-source licence compliance: ScanCode's hand-labelled licence rules as one labelled parquet file.

Each row is a document (a notice, a tag, a reference, a whole text) with the category of the licence it speaks of and
the entities in it. Data: ScanCode LicenseDB, Copyright (c) nexB Inc. and others, CC-BY-4.0; see `ATTRIBUTION`.

Columns: text; category (the label); entities (JSON, `[{"type": …, "text": …}]`); group; and for provenance licence
(the expression), kind, language and rule (the file).

**What a group is.** Rows of one group stay on one side of a split. The group is the text with capitals, punctuation,
numbers and the marked names and addresses taken out: the same notice for another holder, another year, another
version, or behind another comment sign. Near-duplicate search cannot see these in short texts, where one changed word
is a third of all shingles. The licence itself is *not* the group: a document usually speaks of a licence that is well
known, so recognising MIT in new words is the task; and with one side per licence MIT would be all training or all
test, and a category with a few licences (CLA has 18) could not be split at all. To ask the harder question, how
licences never seen before are classified, set `columns.group: licence`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from license_expression import ExpressionError, Licensing

from tuneloop.artifacts import Build, content_id, sha256_of, write_durably
from tuneloop.cache import make_once
from tuneloop.demo.marked import find_marked
from tuneloop.demo.rules import MARKED, Rule, read_rules
from tuneloop.progress import Progress
from tuneloop.wheels import Wheel, fetch_wheel

LICENCE_WHEEL = Wheel(
    name="licensedcode-data",
    version="32.1.0",
    filename="licensedcode_data-32.1.0-py3-none-any.whl",
    sha256="18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96",
    size_bytes=26_671_146,
)
TABLE = "licences.parquet"
NOTICE = "licences.md"
TABLE_VERSION = 1  # goes up when the table's content changes

FALSE_POSITIVE = "marked as a false positive"
DEPRECATED = "deprecated"
CLUE = "a clue, not a statement"
INTRODUCTION = "an introduction to a licence"
NO_LICENCE = "no licence expression"
UNKNOWN_LICENCE = "names a licence without a category"
DIFFERENT_CATEGORIES = "joins licences of different categories"
EMPTY = "empty text"
FLAGGED = {
    "is_false_positive": FALSE_POSITIVE,
    "is_deprecated": DEPRECATED,
    "is_license_clue": CLUE,
    "is_license_intro": INTRODUCTION,
}

ATTRIBUTION = f"""# Licence documents

Made by tuneloop from the ScanCode licence rules in the PyPI wheel `{LICENCE_WHEEL.requirement}`.

Copyright (c) nexB Inc. and others. All rights reserved. ScanCode is a trademark of nexB Inc.
Licensed under the Creative Commons Attribution 4.0 International licence (CC-BY-4.0), see
https://creativecommons.org/licenses/by/4.0/legalcode for the licence text, https://aboutcode.org for the project.

Changed here: rules turned into rows; false positives, deprecated rules, clues, introductions and expressions that join
licences of different categories left out; the `{{{{` and `}}}}` marks taken out of the texts; marked values given as
they stand in the text; the licence's category given to each rule. The texts are those of many licence authors.
"""


@dataclass(frozen=True)
class TableCounts:
    """What went into the table and what did not. All mappings are name → number, largest first.

    `dropped` counts documents by reason; `expressions_of_different_categories` counts distinct expressions among
    those dropped as `DIFFERENT_CATEGORIES`. `entities` and `entities_not_in_text` count marked values by type: kept,
    and left out since the document does not contain them.
    """

    read: int
    kept: int
    dropped: Mapping[str, int]
    expressions_of_different_categories: int
    categories: Mapping[str, int]
    kinds: Mapping[str, int]
    entities: Mapping[str, int]
    entities_not_in_text: Mapping[str, int]
    groups: int


@dataclass(frozen=True)
class LicenceTable:
    """The labelled parquet file, and what it was made of."""

    path: Path
    counts: TableCounts


@dataclass(frozen=True, slots=True)
class _Row:
    text: str
    category: str
    entities: str
    group: str
    licence: str
    kind: str
    language: str
    rule: str


def build_licence_table(progress: Progress, folder: Path | None = None) -> LicenceTable:
    """Return the table, made once into the cache (half a minute), and copied into `folder` if one is given.

    The same wheel gives the same rows in the same order. Beside the copy goes `licences.md` with the attribution.

    Raises:
        NetworkError: the wheel is not in the cache and cannot be fetched.
        ArtifactError: the wheel is not the expected one.
        StorageError: the cache cannot be written.
    """
    inputs = {"wheel_sha256": LICENCE_WHEEL.sha256, "table_version": TABLE_VERSION}
    id = f"licences-{content_id('demo-data', inputs)[:8]}"

    def make(build: Build) -> None:
        rules = read_rules(fetch_wheel(LICENCE_WHEEL, progress=progress), progress)
        rows, counts = label_rules(rules, progress)
        _write_table(rows, build.path / TABLE)
        (build.path / NOTICE).write_text(ATTRIBUTION, encoding="utf-8")
        build.summary.update(asdict(counts))

    artifact = make_once("demo-data", id, inputs=inputs, make=make, progress=progress)
    counts = TableCounts(**{name: _largest_first(value) for name, value in artifact.summary.items()})
    if folder is None:
        return LicenceTable(artifact.path / TABLE, counts)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TABLE, NOTICE):
        copy = folder / name
        if not (copy.is_file() and sha256_of(copy) == artifact.manifest["files"][name]["sha256"]):
            write_durably(copy, (artifact.path / name).read_bytes())
    return LicenceTable(folder / TABLE, counts)


def label_rules(rules: list[Rule], progress: Progress) -> tuple[list[_Row], TableCounts]:
    """Give every usable document its category and entities; the rest is counted by reason."""
    categories = {rule.licence: rule.category for rule in rules if rule.category}
    licensing = Licensing()
    by_expression = {rule.licence: category_of(rule.licence, categories, licensing) for rule in rules}
    rows: list[_Row] = []
    dropped: Counter[str] = Counter()
    found: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    with progress.task("Labelling licence rules", len(rules)) as advance:
        for rule in rules:
            advance(1)
            category, reason = by_expression[rule.licence]
            reason = _reason_to_drop(rule) or reason
            if reason:
                dropped[reason] += 1
                continue
            entities, missing = entities_of(rule)
            found.update(type for type, _ in entities)
            lost.update(missing)
            rows.append(_row(rule, category, entities))
    mixed = {rule.licence for rule in rules if by_expression[rule.licence][1] == DIFFERENT_CATEGORIES}
    counts = TableCounts(
        read=len(rules),
        kept=len(rows),
        dropped=_largest_first(dropped),
        expressions_of_different_categories=len(mixed),
        categories=_largest_first(Counter(row.category for row in rows)),
        kinds=_largest_first(Counter(row.kind for row in rows)),
        entities=_largest_first(found),
        entities_not_in_text=_largest_first(lost),
        groups=len({row.group for row in rows}),
    )
    return rows, counts


def category_of(expression: str, categories: Mapping[str, str], licensing: Licensing) -> tuple[str, str]:
    """Return (category, reason): the one category that all licences of an expression have, or why there is none.

    An exception counts as a licence, as it does in ScanCode: `gpl-2.0 WITH classpath-exception-2.0` joins Copyleft
    and Copyleft Limited.
    """
    if not expression:
        return "", NO_LICENCE
    try:
        keys = licensing.license_keys(expression)
    except ExpressionError:
        return "", UNKNOWN_LICENCE
    found = {categories.get(key, "") for key in keys}
    if "" in found:
        return "", UNKNOWN_LICENCE
    return (found.pop(), "") if len(found) == 1 else ("", DIFFERENT_CATEGORIES)


def _reason_to_drop(rule: Rule) -> str:
    for flag, reason in FLAGGED.items():
        if flag in rule.flags:
            return reason
    return "" if rule.text else EMPTY


def entities_of(rule: Rule) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the (type, value) pairs that occur in the rule's text, in order, and the types of those that do not."""
    entities: list[tuple[str, str]] = []
    missing = []
    for type in MARKED:
        for value in rule.marked.get(type, ()):
            found = find_marked(rule.text, type, value)
            if found is None:
                missing.append(type)
            elif (type, found) not in entities:
                entities.append((type, found))
    types = list(MARKED)
    return sorted(entities, key=lambda pair: (types.index(pair[0]), rule.text.index(pair[1]))), missing


def group_of(text: str, entities: list[tuple[str, str]]) -> str:
    """Return 16 hex digits that are equal for texts which differ in names, addresses, numbers and layout only."""
    names = sorted((value for type, value in entities if type != "url"), key=len, reverse=True)
    bare = text
    for name in names:
        bare = bare.replace(name, " ")
    words = re.findall(r"[^\W\d_]+", bare.casefold())
    if len(words) < 3:  # nothing but names and numbers is left: they are what the text is
        words = re.findall(r"\w+", text.casefold())
    return sha256(" ".join(words or [text]).encode()).hexdigest()[:16]


def _row(rule: Rule, category: str, entities: list[tuple[str, str]]) -> _Row:
    listed = [{"type": type, "text": value} for type, value in entities]
    return _Row(
        text=rule.text,
        category=category,
        entities=json.dumps(listed, ensure_ascii=False),
        group=group_of(rule.text, entities),
        licence=rule.licence,
        kind=rule.kind,
        language=rule.language,
        rule=rule.file,
    )


def _largest_first(value: Any) -> Any:
    """Order a mapping of counts by size and name (a manifest keeps its keys sorted); leave numbers alone."""
    return dict(sorted(value.items(), key=lambda item: (-item[1], item[0]))) if isinstance(value, Mapping) else value


def _write_table(rows: list[_Row], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {"license": "CC-BY-4.0", "attribution": ATTRIBUTION, "source": LICENCE_WHEEL.requirement}
    fields = pa.schema([(name, pa.string()) for name in _Row.__slots__], metadata=metadata)
    columns = {name: [getattr(row, name) for row in rows] for name in _Row.__slots__}
    pq.write_table(pa.table(columns, schema=fields), path, compression="zstd")
