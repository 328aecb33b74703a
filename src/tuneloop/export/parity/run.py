"""The parity check: the same items through two engines, and whether the second answers as the first does.

Knows nothing about files: `stored` keeps results, `words` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tuneloop.errors import UsageError
from tuneloop.export.parity.asked import Answering, Asked, ask
from tuneloop.export.parity.causes import Found, likely_causes, task_differences
from tuneloop.export.parity.figures import (
    AccuracyParity,
    EntityParity,
    LabelParity,
    compare_accuracy,
    compare_entities,
    compare_labels,
)
from tuneloop.export.parity.prompts import PromptParity, compare_prompts
from tuneloop.export.parity.result import ParityResult
from tuneloop.export.parity.scores import Differences, pair_scores, probability_differences, score_differences
from tuneloop.export.parity.tolerance import Tolerance
from tuneloop.export.parity.words import departure_words, percent
from tuneloop.progress import SILENT, Progress
from tuneloop.records import Example


def check_parity(
    reference: Answering | Asked,
    other: Answering | Asked,
    items: Sequence[Example],
    tolerance: Tolerance,
    *,
    names: tuple[str, str] = ("", ""),
    untuned: Callable[[], Answering] | None = None,
    progress: Progress = SILENT,
) -> ParityResult:
    """Put the items through both engines and compare prompts, tokens, labels, scores, entities and accuracy.

    Args: reference, other: an engine, or what `asked.ask` got from one (so that a reference is asked once for many);
        names: of both in tables and sentences (default: their own); untuned: opens the model without its adapter, and
        is called only where that helps to name a cause.
    Raises: UsageError: there are no items; whatever the engines raise.
    """
    if not items:
        raise UsageError(
            "there are no items to compare on", where="parity", hint="Take a dataset version with a test split."
        )
    mine, theirs = (
        engine if isinstance(engine, Asked) else ask(engine, items, name, progress)
        for engine, name in zip((reference, other), names, strict=True)
    )

    def ask_untuned() -> Asked:
        assert untuned is not None
        engine = untuned()
        try:
            return ask(engine, items, "the untuned model", progress)
        finally:
            engine.close()

    return compare(mine, theirs, items, tolerance, ask_untuned if untuned else None)


def compare(
    reference: Asked,
    other: Asked,
    items: Sequence[Example],
    tolerance: Tolerance,
    untuned: Callable[[], Asked] | None = None,
) -> ParityResult:
    """Compare two engines' answers to the same items, and judge the difference by the tolerance."""
    prompts, pair = compare_prompts(reference, other, items), pair_scores(reference, other)
    scores = None if pair is None else score_differences(pair, items)
    labels, entities = compare_labels(reference, other, items), compare_entities(reference, other, items)
    accuracy = compare_accuracy(reference, other, items)
    probabilities = probability_differences(reference, other, items)
    beyond = [
        *(f"another task: {difference}" for difference in task_differences(reference, other)),
        *_prompts_beyond(prompts, tolerance),
        *_labels_beyond(labels, len(items), tolerance),
        *_scores_beyond(scores, tolerance),
        *_probabilities_beyond(probabilities, tolerance),
        *_entities_beyond(entities, tolerance),
        *_accuracy_beyond(accuracy, tolerance),
    ]
    is_alike = not beyond and (labels is None or labels.same == len(items))
    return ParityResult(
        reference=reference.name,
        other=other.name,
        n=len(items),
        tolerance=tolerance,
        prompts=prompts,
        labels=labels,
        scores=scores,
        probabilities=probabilities,
        accuracy=accuracy,
        entities=entities,
        reference_speed=reference.speed,
        other_speed=other.speed,
        beyond=tuple(beyond),
        causes=() if is_alike else likely_causes(Found(reference, other, prompts, untuned if beyond else None)),
        notes=tuple(_notes(other, prompts, tolerance)),
    )


def _prompts_beyond(prompts: PromptParity, tolerance: Tolerance) -> list[str]:
    if not tolerance.same_prompts or prompts.first is None:
        return []
    return [departure_words(prompts)]


def _labels_beyond(labels: LabelParity | None, n: int, tolerance: Tolerance) -> list[str]:
    if labels is None or labels.agreement.estimate >= tolerance.min_agreement:
        return []
    first = f"; the first is item {labels.first.item} ({labels.first.item_id})" if labels.first else ""
    return [
        f"another label on {n - labels.same:,} of {n:,} documents ({percent(labels.agreement.estimate)} agree, "
        f"{percent(tolerance.min_agreement)} required){first}"
    ]


def _scores_beyond(differences: Differences | None, tolerance: Tolerance) -> list[str]:
    limit = tolerance.max_median_score_difference
    if limit is None or differences is None or differences.median <= limit:
        return []
    return [f"label scores differ by {differences.median:.2f} nats on the median document ({limit:g} allowed)"]


def _probabilities_beyond(differences: Differences | None, tolerance: Tolerance) -> list[str]:
    limit = tolerance.max_median_probability_difference
    if limit is None or differences is None or differences.median <= limit:
        return []
    return [
        f"probabilities differ by {differences.median:.3f} on the median document ({limit:g} allowed), "
        "so that other documents go to review"
    ]


def _entities_beyond(entities: EntityParity | None, tolerance: Tolerance) -> list[str]:
    limit = tolerance.min_entity_agreement
    if limit is None or entities is None or entities.agreement_f1.estimate >= limit:
        return []
    figure = entities.agreement_f1.estimate
    found = "other entities throughout" if math.isnan(figure) else f"entities agree to {percent(figure)} (F1)"
    return [f"{found}, {percent(limit)} required"]


def _accuracy_beyond(accuracy: AccuracyParity | None, tolerance: Tolerance) -> list[str]:
    limit = tolerance.max_accuracy_loss
    if limit is None or accuracy is None or -accuracy.difference.estimate <= limit:
        return []
    loss = f"accuracy falls by {-100 * accuracy.difference.estimate:.1f} points"
    shares = f"from {percent(accuracy.reference.estimate)} to {percent(accuracy.other.estimate)}"
    return [f"{loss}, {shares} ({100 * limit:g} points allowed)"]


def _notes(other: Asked, prompts: PromptParity, tolerance: Tolerance) -> list[str]:
    notes = []
    if not prompts.is_known:
        notes.append(f"the prompts could not be compared: {prompts.untold}")
    elif prompts.first is not None and not tolerance.same_prompts:
        notes.append(departure_words(prompts))
    if other.changed_alone:
        notes.append(
            f"{other.changed_alone} of {len(other.speed.alone_s)} documents got another label when asked alone"
        )
    return notes
