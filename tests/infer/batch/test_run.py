"""A batch that is interrupted anywhere ends in the same bytes as one that was let run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.projects import Heard
from tuneloop.errors import StorageError, UsageError
from tuneloop.infer.batch.journal import LOCK, journal_folder, open_journal
from tuneloop.infer.batch.run import BatchResult, run_batch
from tuneloop.progress import SILENT, Advance, Progress

ABOUT = {"file": "inbox.parquet", "run": "a1", "threshold": 0.85}
TEXTS = [f"document {n}\u2028 with 'quotes' \"and\" ünïcode" for n in range(23)]


class Killed(BaseException):
    """What stands for the end of the process."""


class Model:
    """Answers a text with its length, and dies at the n-th chunk."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.asked: list[str] = []
        self.dies_at, self.chunks = dies_at, 0

    def __call__(self, texts: Sequence[str], advance: Advance) -> list[dict[str, Any]]:
        if self.chunks == self.dies_at:
            raise Killed
        self.chunks += 1
        self.asked += texts
        advance(len(texts))
        return [_row(text) for text in texts]


def _row(text: str) -> dict[str, Any]:
    return {
        "source": "inbox", "row": TEXTS.index(text) + 1, "text": text, "label": None, "probability": 1 / len(text),
        "entities": [{"type": "t", "text": text[:3], "start": 0, "end": 3}], "rejected_entities": [], "raw_text": "",
        "invented": False, "well_formed": True, "route": "auto" if len(text) % 2 else "review",
        "label_scores": [-0.1, -2.0], "reason": "",
    }  # fmt: skip


def run(
    output: Path,
    model: Model,
    about: dict[str, Any] = ABOUT,
    *,
    size: int = 5,
    restart: bool = False,
    progress: Progress = SILENT,
    clock: Callable[[], float] | None = None,
) -> BatchResult:
    timed = {} if clock is None else {"clock": clock}
    return run_batch(
        TEXTS, len(TEXTS), model, output, about, chunk_size=size, progress=progress, restart=restart, **timed
    )


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("dies_at", range(5))
def test_a_killed_batch_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, name: str, dies_at: int) -> None:
    whole = run(tmp_path / f"whole-{name}", Model())
    with pytest.raises(Killed):
        run(tmp_path / name, Model(dies_at))
    assert not (tmp_path / name).exists()
    second = Model()
    result = run(tmp_path / name, second)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()
    assert second.asked == TEXTS[5 * dies_at :]
    assert (result.documents, result.resumed, result.routes) == (23, 5 * dies_at, whole.routes)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"whole-{name}"])


def test_answers_come_in_the_order_of_the_documents_in_both_formats(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.parquet"):
        run(tmp_path / name, Model(), size=4)
    lines = (tmp_path / "out.jsonl").read_text("utf-8").split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [_row(text) for text in TEXTS]
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.to_pylist() == [_row(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"run": "b2"}, 'run was "a1", now "b2"'),
        ({"threshold": 0.5}, "threshold was 0.85, now 0.5"),
        ({"extra": 1}, "extra was null, now 1"),
    ],
)
def test_answers_of_something_else_are_not_mixed_in(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(Killed):
        run(output, Model(dies_at=2))
    with pytest.raises(UsageError) as refused:
        run(output, Model(), {**ABOUT, **change})
    assert said in refused.value.message
    assert "--restart" in refused.value.hint
    begun_again = Model()
    assert run(output, begun_again, {**ABOUT, **change}, restart=True).resumed == 0
    assert begun_again.asked == TEXTS


def test_another_size_of_chunks_is_refused_as_well(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "out.jsonl", Model(dies_at=2))
    with pytest.raises(UsageError, match="chunk_size was 5, now 6"):
        run(tmp_path / "out.jsonl", Model(), size=6)


def test_where_nothing_was_finished_nothing_can_be_mixed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "out.jsonl", Model(dies_at=0))
    assert run(tmp_path / "out.jsonl", Model(), {**ABOUT, "run": "b2"}).documents == 23


def test_a_chunk_that_is_damaged_or_not_noted_is_answered_again(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(Killed):
        run(output, Model(dies_at=3))
    folder = journal_folder(output)
    (folder / "chunk-00000001.jsonl").write_text("{}\n")
    journal = folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])  # as if killed while the third chunk was being noted
    again = Model()
    assert run(output, again).resumed == 5
    assert again.asked == TEXTS[5:]


@settings(max_examples=12)
@given(st.integers(0, 2000))
def test_a_journal_that_was_cut_anywhere_can_be_gone_on_from(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out.jsonl"
        with pytest.raises(Killed):
            run(output, Model(dies_at=4))
        journal = journal_folder(output) / "journal.jsonl"
        content = journal.read_bytes()
        journal.write_bytes(content[: cut % (len(content) + 1)])
        run(output, Model())
        rows = [json.loads(line) for line in output.read_text("utf-8").split("\n")[:-1]]
        assert rows == [_row(text) for text in TEXTS]


def test_two_at_once_do_not_write_the_same_output(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with open_journal(output, ABOUT):
        lock = FileLock(journal_folder(output) / LOCK)
        assert not lock.is_locked
        with pytest.raises(StorageError, match=r"another process is answering into out\.jsonl"):
            run(output, Model())


def test_an_old_output_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("old\n")
    with pytest.raises(Killed):
        run(output, Model(dies_at=1))
    assert output.read_text() == "old\n"
    run(output, Model())
    assert len(output.read_text("utf-8").split("\n")) == 24


def test_it_says_how_fast_it_goes_and_from_where_it_goes_on(tmp_path: Path) -> None:
    seconds = iter(range(0, 10_000, 40))
    heard = Heard()
    with pytest.raises(Killed):
        run(tmp_path / "out.jsonl", Model(dies_at=1))
    run(tmp_path / "out.jsonl", Model(), progress=heard, clock=lambda: float(next(seconds)))
    assert heard.lines[0] == "5 of 23 documents were answered before; going on from there."
    assert heard.lines[1] == "10 of 23 documents, 0.125 a second, about 2 min left"
