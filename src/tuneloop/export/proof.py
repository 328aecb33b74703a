"""The original's answers to the held-out documents, and each form's beside them."""

from __future__ import annotations

from functools import cached_property

from tuneloop.export.items import parity_items
from tuneloop.export.parity.asked import Asked, ask
from tuneloop.export.parity.known import with_known_reasons
from tuneloop.export.parity.result import ParityResult
from tuneloop.export.parity.run import check_parity
from tuneloop.export.parity.tolerance import Tolerance
from tuneloop.export.source import Source
from tuneloop.forms import ExportedForm
from tuneloop.infer.engines.opening import open_engine, open_untuned_engine
from tuneloop.infer.engines.protocol import Engine
from tuneloop.progress import Progress
from tuneloop.records import Example

ORIGINAL = "the evaluated model"


class Reference:
    """The run as it was evaluated, asked once for all forms; one model is in memory at a time."""

    def __init__(self, source: Source, progress: Progress) -> None:
        self.source, self.progress = source, progress

    def prove(self, form: ExportedForm) -> ParityResult:
        """Let a form answer what the original answered, and compare.

        Raises: ModelError, UsageError: no engine here can load the form.
        """
        asked = self._asked  # before the form is loaded
        engine = open_engine(self.source.config, form.engine, form=form, progress=self.progress)
        limits = self.source.config.export.tolerances.of(form.name).model_dump()
        try:
            result = check_parity(
                asked,
                engine,
                self._items,
                Tolerance(**limits),
                names=(ORIGINAL, form.name),
                untuned=lambda: open_untuned_engine(self.source.config, self.source.run, self.progress),
                progress=self.progress,
            )
        finally:
            engine.close()
        return with_known_reasons(result, form)

    @cached_property
    def _items(self) -> list[Example]:
        return parity_items(self.source.dataset, self.source.config.export)

    @cached_property
    def _asked(self) -> Asked:
        engine: Engine = open_engine(self.source.config, "transformers", run=self.source.run, progress=self.progress)
        try:
            return ask(engine, self._items, ORIGINAL, self.progress)
        finally:
            engine.close()
