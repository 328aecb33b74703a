from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.artifacts import Artifact, ArtifactStore, sha256_of
from tuneloop.dataset import open_dataset, stratified_subset, write_dataset
from tuneloop.errors import ArtifactError
from tuneloop.records import Dropped, Entity, Example

EXAMPLES = [
    Example(id="a", text="Zürich\nline", label="x", entities=(Entity("place", "Zürich", 0, 6),), source="f.csv", row=1),
    Example(id="b", text="none looked for", label=None, entities=None, group="g", source="f.csv", row=2),
    Example(id="c", text="looked for, none there", label="y", entities=(), source="f.csv", row=3),
]
DROPPED = [
    Dropped(id="d", reason="duplicate", detail="the same", source="f.csv", row=4, kept="a", score=1.0),
    Dropped(id="e", reason="empty-text", detail="nothing", source="f.csv", row=5),
]


def write(folder: Path) -> None:
    folder.mkdir()
    write_dataset(
        folder,
        kind="classify+extract",
        labels=["x", "y"],
        entity_types=["place"],
        splits={"train": EXAMPLES[:2], "test": EXAMPLES[2:]},
        dropped=DROPPED,
        report={"rows_read": 5},
    )


def artifact(folder: Path, kind: str = "dataset") -> Artifact:
    return Artifact(kind, "0123456789abcdef", folder, {})


def test_what_is_written_is_read_back_equal(tmp_path: Path) -> None:
    write(tmp_path / "a=b")
    version = open_dataset(artifact(tmp_path / "a=b"))
    assert version.split("train") == EXAMPLES[:2]
    assert version.split("validation") == []
    assert version.split("test") == EXAMPLES[2:]
    first, second = version.dropped()
    assert first == DROPPED[0]
    assert second.id == "e" and math.isnan(second.score)
    assert (version.kind, version.labels, version.entity_types) == ("classify+extract", ("x", "y"), ("place",))
    assert version.report["rows_read"] == 5


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert "train.parquet" in names
    assert [sha256_of(tmp_path / "one" / n) for n in names] == [sha256_of(tmp_path / "two" / n) for n in names]


def test_an_artifact_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not a dataset version"):
        open_dataset(artifact(tmp_path, kind="run"))


def test_a_truncated_split_names_its_file_and_what_to_do(tmp_path: Path) -> None:
    write(tmp_path / "v")
    path = tmp_path / "v" / "train.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError) as caught:
        open_dataset(artifact(tmp_path / "v")).split("train")
    assert caught.value.where == str(path)
    assert "data prepare" in caught.value.hint


def test_a_stored_artifact_opens(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.build("dataset", "ab" * 8, parents={}, inputs={}) as build:
        write_dataset(
            build.path,
            kind="classify",
            labels=["x"],
            entity_types=[],
            splits={"train": EXAMPLES},
            dropped=[],
            report={},
        )
    assert open_dataset(store.get("ab")).split("train") == EXAMPLES


def labelled(counts: dict[str, int]) -> list[Example]:
    return [Example(id=f"{label}{n}", text="t", label=label) for label, count in counts.items() for n in range(count)]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), min_size=1),
    st.integers(0, 400),
    st.integers(0, 5),
    st.randoms(),
)
def test_a_subset_keeps_proportions_for_any_counts_and_row_order(
    counts: dict[str, int], size: int, seed: int, shuffler: object
) -> None:
    examples = labelled(counts)
    subset = stratified_subset(examples, size, seed)
    total = len(examples)
    assert len(subset) == min(size, total) == len({example.id for example in subset})
    taken = Counter(example.label for example in subset)
    for label, count in counts.items():
        assert len(counts) > size or taken[label] >= 1
        if size < total:
            quota = size * count / total
            assert taken[label] < max(quota + 1, 1 + 1e-9)
    shuffler.shuffle(examples)  # type: ignore[attr-defined]
    assert stratified_subset(examples, size, seed) == subset


def test_a_subset_gives_the_last_seats_to_the_largest_remainders() -> None:
    subset = stratified_subset(labelled({"a": 50, "b": 30, "c": 20}), 11, seed=1)  # quotas 5.5, 3.3, 2.2
    assert Counter(example.label for example in subset) == {"a": 6, "b": 3, "c": 2}


def test_a_subset_without_a_size_is_everything_in_an_order_of_its_own() -> None:
    examples = labelled({"a": 30, "b": 30})
    everything = stratified_subset(examples, None, seed=1)
    assert sorted(everything, key=lambda e: e.id) == sorted(examples, key=lambda e: e.id)
    assert everything != examples
    assert everything != stratified_subset(examples, None, seed=2)
