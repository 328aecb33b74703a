"""What a service starts with: what it is told to, unless a name was switched over HTTP since that was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import ConfigError, TuneloopError

if TYPE_CHECKING:
    from tuneloop.serve.switches import Switch, SwitchBook

Resolve = Callable[[ServedModelConfig], ServedModelConfig]
GO_BACK = "`tuneloop serve --as-configured` goes back to the configuration."


def choose_models(
    told: Sequence[ServedModelConfig], book: SwitchBook, resolve: Resolve, *, is_explicit: bool
) -> tuple[list[ServedModelConfig], list[str]]:
    """Return what is opened, and a sentence about every name for which that is a question.

    Args: told: by the command line (`is_explicit`: it wins over every switch) or the configuration; resolve: returns
        the same with the whole id of its run or export.
    Raises: ArtifactError: something that was told is not there; ConfigError: what a name was switched to is not there.
    """
    from tuneloop.serve.switches import NOT_CONFIGURED, meant_by

    sources = [resolve(source) for source in told]
    book.configured = {source.name: meant_by(source) for source in sources}
    switches, notes = book.latest(), []
    for place, source in enumerate(sources):
        switch, meant = switches.pop(source.name, None), meant_by(source)
        if switch is None or meant_by(switch.source) == meant:
            continue
        if is_explicit:
            notes.append(f"{source.name} is {meant}, as the command line says; without that it is {switch}.")
        elif switch.configured == meant:
            sources[place] = _still_there(switch, resolve)
            notes.append(f"{source.name} was switched to {switch}; the configuration says {meant}. {GO_BACK}")
        else:
            notes.append(f"{source.name} is {meant}, which was not configured when it was switched to {switch}.")
    if not is_explicit:
        added = [switch for switch in switches.values() if switch.configured == NOT_CONFIGURED]
        sources += [_still_there(switch, resolve) for switch in added]
        notes += [f"{switch.source.name} was added as {switch}. {GO_BACK}" for switch in added]
    return sources, notes


def _still_there(switch: Switch, resolve: Resolve) -> ServedModelConfig:
    try:
        return resolve(switch.source)
    except TuneloopError as error:
        found = f"it was switched to {switch}, which cannot be served: {error.message}"
        raise ConfigError(found, where=f"model {switch.source.name}", hint=GO_BACK) from error
