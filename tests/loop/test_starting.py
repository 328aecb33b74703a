from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tuneloop.config.schema import StoreConfig
from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import ArtifactError, ConfigError
from tuneloop.loop.starting import choose_models
from tuneloop.serve.switches import SwitchBook
from tuneloop.store.database import open_database

OWN = ServedModelConfig(name="default")


class Store:
    """Knows which runs there are; `own` is the one that the configuration describes."""

    def __init__(self) -> None:
        self.own, self.runs = "aaaa", {"aaaa", "bbbb", "cccc"}

    def resolve(self, source: ServedModelConfig) -> ServedModelConfig:
        if source.alias_of is not None:
            return source
        run = next((run for run in self.runs if run.startswith(source.run or self.own)), None)
        if run is None:
            raise ArtifactError("there is no such artifact", where="x", hint="y")
        return source.model_copy(update={"run": run})


@pytest.fixture
def book(tmp_path: Path) -> Iterator[SwitchBook]:
    with open_database(StoreConfig(root=tmp_path)) as database:
        yield SwitchBook(database)


def start(
    book: SwitchBook, store: Store, told: Sequence[ServedModelConfig] = (OWN,), *, is_explicit: bool = False
) -> tuple[dict[str, str | None], str]:
    """Return what a service started again would open, by name, and what it would say."""
    again = SwitchBook(book.database)
    sources, notes = choose_models(told, again, store.resolve, is_explicit=is_explicit)
    book.configured = again.configured
    return {source.name: source.run or source.alias_of for source in sources}, " ".join(notes)


def switch(book: SwitchBook, name: str, run: str | None = None, alias_of: str | None = None) -> None:
    book.record(ServedModelConfig(name=name, run=run, alias_of=alias_of), "key1")


def test_without_a_switch_it_starts_as_told_and_says_nothing(book: SwitchBook) -> None:
    assert start(book, Store()) == ({"default": "aaaa"}, "")


def test_a_switch_holds_after_a_restart_which_says_so(book: SwitchBook) -> None:
    start(book, Store())
    switch(book, "default", "cccc")
    switch(book, "default", "bbbb")
    opened, said = start(book, Store())
    assert opened == {"default": "bbbb"}
    assert "default was switched to run bbbb on" in said
    assert "by key1; the configuration says run aaaa. `tuneloop serve --as-configured`" in said
    assert start(book, Store())[0] == {"default": "bbbb"}


def test_a_configuration_that_has_changed_since_wins(book: SwitchBook) -> None:
    store = Store()
    start(book, store)
    switch(book, "default", "bbbb")
    store.own = "cccc"
    opened, said = start(book, store)
    assert opened == {"default": "cccc"}
    assert "was not configured when it was switched to run bbbb" in said


def test_the_command_line_wins_and_what_it_overrides_holds_again_without_it(book: SwitchBook) -> None:
    start(book, Store())
    switch(book, "default", "bbbb")
    opened, said = start(book, Store(), [ServedModelConfig(name="default", run="cc")], is_explicit=True)
    assert opened == {"default": "cccc"}
    assert "as the command line says" in said
    assert start(book, Store())[0] == {"default": "bbbb"}


def test_names_that_were_added_and_aliases_that_were_moved_are_there_again(book: SwitchBook) -> None:
    told = [OWN, ServedModelConfig(name="stable", alias_of="default")]
    start(book, Store(), told)
    switch(book, "candidate", "cccc")
    switch(book, "stable", alias_of="candidate")
    assert start(book, Store(), told)[0] == {"default": "aaaa", "stable": "candidate", "candidate": "cccc"}


def test_switches_can_be_forgotten(book: SwitchBook) -> None:
    start(book, Store())
    switch(book, "default", "bbbb")
    switch(book, "candidate", "cccc")
    book.forget(["default", "candidate"], "command line")
    assert start(book, Store()) == ({"default": "aaaa"}, "")


def test_a_switch_to_what_is_gone_is_refused_with_the_way_back(book: SwitchBook) -> None:
    store = Store()
    start(book, store)
    switch(book, "default", "bbbb")
    store.runs.remove("bbbb")
    with pytest.raises(ConfigError, match="cannot be served") as refused:
        start(book, store)
    assert "--as-configured" in str(refused.value.hint)
