"""Documents written to attack are answered like any other, and shown as text wherever they are shown."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished
from tests.evaluate.report.test_report import LOADING, Page
from tests.models.loaded import opened
from tests.models.tiny import FAMILIES, Family
from tests.serve.attacks import attacks, faults, unicode_attacks
from tests.serve.make_attacks import EVIL, FILE, documents
from tests.train.projects import config_of, make_project, trained, write_yaml
from tuneloop.evaluate.comparison.compare import SubjectAnswers, compare
from tuneloop.evaluate.wording import visible
from tuneloop.infer.predict import Mode, Predictor
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Example, Prediction

LABELS = ("Copyleft", "Permissive", "Public Domain")
TASKS = {
    "classify": TaskPrompt("classify", "Classify the document.", LABELS, ()),
    "extract": TaskPrompt("extract", "Extract.", (), ("holder", "date")),
    "classify+extract": TaskPrompt("classify+extract", "Do both.", LABELS, ("holder", "date")),
}
UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)


def predictor(task: str, family: Family = "llama") -> Predictor:
    return Predictor(opened(family), TASKS[task], max_tokens=800, max_new_tokens=6)


def test_the_file_is_what_its_script_writes() -> None:
    assert [json.loads(line) for line in FILE.read_text("ascii").splitlines()] == documents()
    assert len({text for _, text in attacks()}) == 300
    assert Counter(id.split("-")[0] for id, _ in attacks()) == {
        "override": 60, "template": 60, "label": 45, "json": 40, "unicode": 45, "markup": 50,
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["closed", "free"])
@pytest.mark.parametrize("task", TASKS)
def test_no_answer_is_outside_the_label_set_or_the_schema(task: str, mode: Mode) -> None:
    texts = [text for _, text in attacks()]
    subject = predictor(task)
    answers = subject.predict(texts, mode)
    assert len(answers) == 300
    assert faults(TASKS[task], texts, answers, is_free=mode == "free") == []


@pytest.mark.parametrize("family", FAMILIES)
def test_no_document_has_a_control_token_of_its_own(family: Family) -> None:
    chat = opened(family).chat
    controls = set(chat.tokenizer.all_special_ids)
    tame = sum(token in controls for token in chat.prompt_ids("s", "d"))
    for id, text in attacks():
        assert sum(token in controls for token in chat.prompt_ids("s", text)) == tame, id


def test_a_model_that_obeys_is_still_held_to_the_label_set(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for _, text in attacks()][:20]
    subject = predictor("classify+extract")
    obeyed = ['{"label": "PWNED", "entities": {}}', '{"label": "PWNED", "entities": {"pwned": ["x"]}}', EVIL, "[[[["]
    monkeypatch.setattr(subject.loaded.chat, "decode", lambda ids: random.Random(len(ids)).choice(obeyed))
    free = subject.predict(texts, "free")
    assert faults(subject.task, texts, free, is_free=True) == []
    assert all(answer.invented and answer.route == "review" for answer in free)
    assert faults(subject.task, texts, subject.predict(texts, "closed"), is_free=False) == []
    made_up = Prediction(label=EVIL, probability=2.0, entities=None)
    assert len(faults(subject.task, ["x"], [made_up], is_free=False)) == 3  # the checks do find what they are for


def evaluation_of(texts: list[str]) -> Any:
    """Return an evaluation in which attacks are documents, labels and whole answers."""
    items = [Example(id=str(n), text=text, label=LABELS[n % 3], source=text[:40]) for n, text in enumerate(texts)]
    free = [
        Prediction(label=text, probability=0.9, raw_text=text, invented=True, well_formed=False, route="review")
        for text in texts
    ]
    closed = [Prediction(label=LABELS[n % 2], probability=0.9) for n in range(len(texts))]
    answers = {"tuned": SubjectAnswers(name="tuned", title=texts[0], closed=closed, free=free)}
    comparison = compare(items, answers, labels=LABELS, resamples=100)
    settings = {"items": items, "answers": answers, "history": [], "dataset_report": {}, "lineage": []}
    return comparison, settings


def tame(text: str) -> str:
    return "".join(c if c.isalnum() or c == " " else "x" for c in text)


def test_the_report_shows_attacks_as_text(tmp_path: Path) -> None:
    from tuneloop.evaluate.report.report import write_report

    pages: dict[str, Page] = {}
    texts = [text for _, text in attacks()]
    for name, shown in {"attacked": texts, "tame": [tame(text) for text in texts]}.items():
        (tmp_path / name).mkdir()
        comparison, settings = evaluation_of(shown)
        write_report(tmp_path / name, comparison, **settings)
        pages[name] = Page((tmp_path / name / "report.html").read_text("utf-8"))
    assert set(pages["attacked"].tags) <= set(pages["tame"].tags) | {"wbr", "br"}
    for tag, attribute, value in pages["attacked"].attributes:
        assert attribute not in LOADING and not attribute.startswith("on"), (tag, attribute)
        assert "href" not in attribute or value.startswith("#"), (tag, attribute, value)
    html = (tmp_path / "attacked" / "report.html").read_text("utf-8")
    assert EVIL in html
    for text in (html, (tmp_path / "attacked" / "report.md").read_text("utf-8")):
        assert UNSEEN.search(text) is None
    markdown = (tmp_path / "attacked" / "report.md").read_text("utf-8")
    assert "<script" not in markdown and "](javascript:" not in markdown and "](http://evil" not in markdown


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained project of three labels, with the attacks as a file."""
    folder = make_project(tmp_path_factory.mktemp("attacked") / "p", rows=60)
    config = config_of(folder, epochs=0.3)
    trained(config)
    write_yaml(config, folder / "tuneloop.yaml")
    rows = "".join(json.dumps({"text": text}) + "\n" for _, text in unicode_attacks())
    (folder / "attacks.jsonl").write_text(rows, encoding="utf-8")
    return folder


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as the current folder."""
    monkeypatch.chdir(project)
    yield project


def test_the_command_line_shows_nothing_that_steers_a_terminal(in_project: Path, tuneloop: Any) -> None:
    done: Finished = tuneloop("predict", "--file", "attacks.jsonl")
    assert done.code == 0
    assert UNSEEN.search(done.out.replace("\n", "")) is None
    assert "The first 20 are shown" in done.out


def test_json_and_files_are_exactly_one_row_a_document(in_project: Path, tuneloop: Any, tmp_path: Path) -> None:
    from tuneloop.data.validate import normalize

    texts = [normalize(text) for _, text in unicode_attacks()]
    result = json.loads(tuneloop("predict", "--file", "attacks.jsonl", "--json").out)
    assert [row["text"] for row in result["predictions"]] == texts
    assert {row["label"] for row in result["predictions"]} <= {"cat", "dog", "cow"}
    assert tuneloop("predict", "attacks.jsonl", "-o", tmp_path / "out.jsonl").code == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [row["text"] for row in rows] == texts


def test_what_is_visible_of_a_text_cannot_steer_anything() -> None:
    for _, text in attacks():
        assert UNSEEN.search(visible(text)) is None


def test_the_script_runs_by_itself(tmp_path: Path) -> None:
    before = FILE.read_bytes()
    subprocess.run([sys.executable, "tests/serve/make_attacks.py"], check=True, cwd=FILE.parents[2])
    assert FILE.read_bytes() == before
