from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Run, refusal_of
from tests.export.exporting import trained_project, with_export
from tests.train.projects import write_yaml


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config, _, _ = trained_project(tmp_path_factory.mktemp("cli") / "project")
    write_yaml(with_export(config, parity_examples=4), config.store.root.parent / "tuneloop.yaml")
    return config.store.root.parent


@pytest.fixture(autouse=True)
def _in_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def test_forms_are_exported_listed_and_bundled_and_the_parity_table_is_shown(tuneloop: Run, tmp_path: Path) -> None:
    planned = tuneloop("export", "adapter", "--bundle", tmp_path / "release", "--dry-run", "--json")
    assert json.loads(planned.out)["forms"] == ["adapter"] and not (tmp_path / "release").exists()
    done = tuneloop("export", "adapter", "--bundle", tmp_path / "release")
    assert done.code == 0, done.err
    assert "within tolerance" in done.out and "4 of 4" in done.out and "accuracy (%)" in done.out
    (folder,) = (tmp_path / "release").iterdir()
    assert str(folder) in done.out and (folder / "SHA256SUMS").exists()
    again = json.loads(tuneloop("export", "adapter", "--json").out)
    assert [(one["form"], one["skipped"]) for one in again["exports"]] == [("adapter", True)]
    listed = json.loads(tuneloop("export", "--list", "--json").out)["exports"]
    assert [one["id"] for one in listed] == [again["exports"][0]["id"]]
    assert again["exports"][0]["id"] in tuneloop("export", "--list").out


def test_a_form_beyond_its_tolerance_ends_with_exit_code_4_and_names_the_way_to_allow_it(
    tuneloop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneloop.export.parity.result.ParityResult.is_within", False)
    arguments = ("export", "adapter", "export.seed=5")
    done = tuneloop(*arguments)
    lines = done.err.rstrip("\n").splitlines()[-3:]
    assert done.code == 4 and [line.partition(":")[0] for line in lines] == ["error", "where", "do"]
    assert "--allow-beyond-tolerance adapter" in lines[2] and "REFUSED" in done.out
    as_json = tuneloop(*arguments, "--json")
    assert as_json.code == 4 and json.loads(as_json.out)["exports"][0]["refusal"]["do"]
    allowed = tuneloop(*arguments, "--allow-beyond-tolerance", "adapter")
    assert allowed.code == 0 and "adapter" in allowed.out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("export", "gguf-q4"), "Did you mean 'gguf-q4_k_m'?"),
        (("export", "--allow-beyond-tolerance", "merge"), "Did you mean 'merged'?"),
        (("export", "export.forms=[gguf]"), "export.forms"),
        (("export", "--run", "0000"), "no artifact's id begins with"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_anything_is_loaded(
    tuneloop: Run, words: tuple[str, ...], what: str
) -> None:
    refusal = refusal_of(tuneloop(*words))
    assert what in f"{refusal.what} {refusal.where}" and refusal.code in (1, 2)


def test_a_bundle_that_would_replace_something_is_refused_first(tuneloop: Run, tmp_path: Path) -> None:
    taken = tmp_path / "release.tar.gz"
    taken.write_text("precious")
    refusal = refusal_of(tuneloop("export", "merged", "--bundle", taken))
    assert refusal.code == 2 and "something already" in refusal.what and taken.read_text() == "precious"
