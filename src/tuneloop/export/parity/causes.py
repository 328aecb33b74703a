"""What most likely makes two engines answer differently, each cause with the evidence that names it.

The order is that of the work: the task, the chat template, the tokenizer, and only then the weights. What comes before
explains what comes after, so the first that departs is named alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuneloop.export.parity.asked import Asked
from tuneloop.export.parity.prompts import PromptParity
from tuneloop.export.parity.scores import ScorePair, is_permutation, margins, pair_scores
from tuneloop.stats import Floats

NOISE_NATS = 0.02  # by which the order of additions and half precision move a label's log-score
NEAR_TIE_NATS = 0.1  # a lead that such noise can turn over
EXPLAINED = 0.7  # share of a difference (in its squares) that lies in the adapter's own direction
WHOLE = 0.9  # of the adapter's effect that has to be gone to call it missing
SCALE_APART = 0.05
ROUNDING_NATS = 0.5  # more than eight bits of weights or half precision change


@dataclass(frozen=True)
class Found:
    """What was compared; `untuned` asks the model without its adapter, where somebody can."""

    reference: Asked
    other: Asked
    prompts: PromptParity
    untuned: Callable[[], Asked] | None = None


def likely_causes(found: Found) -> tuple[str, ...]:
    """Return why the two depart, most likely first, in words; empty where nothing shows."""
    if task := task_differences(found.reference, found.other):
        return (f"another task: {'; '.join(task)}",)
    if found.prompts.first is not None:
        return (_of_prompts(found),)
    pair = pair_scores(found.reference, found.other)
    if pair is None:
        return _without_scores(found)
    return (_of_scores(found, pair),)


def task_differences(reference: Asked, other: Asked) -> list[str]:
    """Return in words where the two were asked for something else."""
    mine, theirs = reference.task, other.task
    found = []
    if mine.kind != theirs.kind:
        found.append(f"its kind is {theirs.kind}, the reference's {mine.kind}")
    if mine.instruction != theirs.instruction:
        found.append("its instruction is another one")
    if mine.labels != theirs.labels:
        found.append(_label_difference(mine.labels, theirs.labels))
    if mine.entity_types != theirs.entity_types:
        found.append("its entity types are others, or in another order")
    if mine.name_labels != theirs.name_labels:
        found.append("the labels are named in the prompt of only one of the two")
    return found


def _label_difference(mine: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    if set(mine) != set(theirs):
        more, less = len(set(theirs) - set(mine)), len(set(mine) - set(theirs))
        return f"its label set has {more} labels that the reference's lacks, and lacks {less} that it has"
    place = next(number for number, (here, there) in enumerate(zip(mine, theirs, strict=True)) if here != there)
    return (
        f"its label set is in another order (label {place + 1} is {theirs[place]!r}, the reference's {mine[place]!r})"
    )


def _of_prompts(found: Found) -> str:
    item = (found.prompts.first.item if found.prompts.first else 1) - 1
    if found.prompts.first is not None and found.prompts.first.what == "template":
        mine, theirs = ((asked.prompts or ("",) * (item + 1))[item] for asked in (found.reference, found.other))
        system = found.reference.task.system()
        if system in mine and system not in theirs:
            return "another chat template, which leaves out or changes the instruction"
        if mine.split() == theirs.split():
            return "another chat template: the prompts differ in spaces and line breaks alone"
        return "another chat template"
    mine_ids, their_ids = ((asked.token_ids or ((),) * (item + 1))[item] for asked in (found.reference, found.other))
    if their_ids[1:] == mine_ids or mine_ids[1:] == their_ids:
        more = "a token more" if len(their_ids) > len(mine_ids) else "a token less"
        return f"another tokenizer setting: {more} at the beginning (beginning of text, added by the tokenizer)"
    return "another tokenizer, or tokens were added to it: the prompts' text is the same, their tokens are not"


def _without_scores(found: Found) -> tuple[str, ...]:
    if not found.prompts.is_known:
        return (f"not to be told from outside: {found.prompts.untold}",)
    return ("other weights, or another way of choosing the answer; it tells no label scores that would say which",)


def _of_scores(found: Found, pair: ScorePair) -> str:
    if not np.isfinite(pair.theirs).all():
        return "weights or arithmetic that overflow: some of its scores are no numbers (damaged file, or another dtype)"
    if is_permutation(pair, NOISE_NATS):
        return "a permuted label set: it gives the same scores to other labels"
    if _is_noise(pair):
        return "numerical noise: only documents that lie between two labels change"
    if found.untuned is not None and (named := _of_adapter(pair, found, found.untuned())):
        return named
    return _of_weights(found, pair)


def _is_noise(pair: ScorePair) -> bool:
    """Say whether the scores hardly differ, and every other answer is one that such a difference turns over."""
    changed = pair.mine.argmax(axis=1) != pair.theirs.argmax(axis=1)
    leads = margins(pair.mine)[changed]
    return bool(np.median(pair.per_item) <= NOISE_NATS and (leads <= NEAR_TIE_NATS).all())


def _of_adapter(pair: ScorePair, found: Found, untuned: Asked) -> str | None:
    """Say how much of the adapter's effect is missing, if that is what is wrong: the untuned model's scores tell."""
    base = pair_scores(found.reference, untuned)
    if base is None or len(base.items) != len(found.reference.predictions) or len(pair.items) != len(base.items):
        return None
    effect, gap = centred(base.theirs - base.mine), centred(pair.theirs - pair.mine)
    if not (effect**2).sum() or not (gap**2).sum():  # the adapter does nothing, or only all labels' scores are shifted
        return None
    missing = float((gap * effect).sum() / (effect**2).sum())
    explained = float((missing * effect * gap).sum() / (gap**2).sum())
    if explained < EXPLAINED or abs(missing) < SCALE_APART:
        return None
    if missing >= WHOLE and missing <= 2 - WHOLE:
        return "the adapter is not applied: these are the answers of the untuned model"
    return f"the adapter is scaled otherwise: it works at about {max(1 - missing, 0):.2f} of its strength"


def _of_weights(found: Found, pair: ScorePair) -> str:
    """Name what is left, from how systematic the difference is."""
    mine, theirs = centred(pair.mine), centred(pair.theirs)
    norm = float(np.sqrt((mine**2).sum() * (theirs**2).sum()))
    alike = float((mine * theirs).sum()) / norm if norm else 0.0
    slope = float((mine * theirs).sum() / (mine**2).sum()) if (mine**2).sum() else 0.0
    median = float(np.median(pair.per_item))
    evidence = (
        f"the tokens are equal, and label scores differ by {median:.2f} nats on the median document "
        f"(correlation {alike:.2f}, scale {slope:.2f})"
    )
    if median <= ROUNDING_NATS:  # of scores over the label set alone an adapter at half strength changes no more
        unless = "" if found.untuned else ", or adapter not applied or scaled otherwise"
        return f"rounded weights (quantisation, or another dtype){unless}: {evidence}"
    if found.untuned is None:
        return f"adapter not applied or scaled otherwise, or damaged weights: {evidence}"
    if alike < EXPLAINED:
        return f"damaged weights: {evidence}, and not in the direction of the adapter"
    return f"coarsely rounded weights, or an adapter scaled far otherwise: {evidence}"


def centred(scores: Floats) -> Floats:
    """Return scores (N, K) less their mean over the labels, which no answer depends on."""
    shifted: Floats = scores - scores.mean(axis=1, keepdims=True)
    return shifted
