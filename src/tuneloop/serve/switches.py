"""Switches of models that were made over HTTP, in the store: what a service starts with after a restart.

Each row says what a name was switched to, and what the configuration said of it at that time: a switch holds as long as
that is still what the configuration says. The latest row of a name counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select

from tuneloop.config.serving import ServedModelConfig
from tuneloop.store.database import Database
from tuneloop.store.tables import ModelSwitch

NOT_CONFIGURED = ""


@dataclass(frozen=True)
class Switch:
    """What a name was switched to, instead of what was `configured` (an artifact's id, an alias, or nothing)."""

    source: ServedModelConfig
    configured: str
    caller: str
    at: datetime

    def __str__(self) -> str:
        return f"{meant_by(self.source)} on {self.at:%Y-%m-%d %H:%M} UTC by {self.caller}"


@dataclass
class SwitchBook:
    """Where switches are written. `configured` has, for every name of this service, what its start was told of it."""

    database: Database
    configured: Mapping[str, str] = field(default_factory=dict)

    def record(self, source: ServedModelConfig, caller: str) -> None:
        """Keep what a name was switched to. Raises: StorageError."""
        self._add(source, self.configured.get(source.name, NOT_CONFIGURED), caller)

    def forget(self, names: Sequence[str], caller: str) -> None:
        """Keep that these names are as configured again. Raises: StorageError."""
        for name in names:
            self._add(ServedModelConfig(name=name), NOT_CONFIGURED, caller)

    def latest(self) -> dict[str, Switch]:
        """Return the switches that were not taken back, by name. Raises: StorageError."""
        newest = select(func.max(ModelSwitch.id)).group_by(ModelSwitch.name)
        with self.database.reading() as session:
            rows = session.scalars(select(ModelSwitch).where(ModelSwitch.id.in_(newest)).order_by(ModelSwitch.id)).all()
        found = [Switch(_source(row), row.configured, row.caller, row.created_at) for row in rows]
        return {switch.source.name: switch for switch in found if meant_by(switch.source) != NOT_CONFIGURED}

    def _add(self, source: ServedModelConfig, configured: str, caller: str) -> None:
        row = ModelSwitch(
            name=source.name,
            run=source.run,
            export=source.export,
            alias_of=source.alias_of,
            configured=configured,
            caller=caller,
        )
        with self.database.writing() as session:
            session.add(row)


def meant_by(source: ServedModelConfig) -> str:
    """Return what a name stands for in words: `run 3f9c2a7d`; nothing where that is the configuration's own run."""
    named = (("run", source.run), ("export", source.export), ("another name for", source.alias_of))
    return next((f"{word} {value}" for word, value in named if value is not None), NOT_CONFIGURED)


def _source(row: ModelSwitch) -> ServedModelConfig:
    return ServedModelConfig(name=row.name, run=row.run, export=row.export, alias_of=row.alias_of)
