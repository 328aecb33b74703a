"""Which documents every form of a run answers: held-out ones, which no training and no quantisation has seen."""

from __future__ import annotations

from tuneloop.config.exporting import ExportConfig
from tuneloop.dataset import DatasetVersion, stratified_subset
from tuneloop.errors import DataError
from tuneloop.records import Example


def parity_items(dataset: DatasetVersion, settings: ExportConfig) -> list[Example]:
    """Return the documents that every form answers: of the test split, or of the validation split where it is empty.

    Raises: DataError: both are empty.
    """
    held_out = dataset.split("test") or dataset.split("validation")
    if not held_out:
        raise DataError(
            "neither the test nor the validation split has a document, so no form can be compared with the original",
            where=str(dataset.path),
            hint="Set data.test above 0 or add rows, then run `tuneloop data prepare` and `tuneloop train` again.",
        )
    return stratified_subset(held_out, settings.parity_examples, settings.seed)
