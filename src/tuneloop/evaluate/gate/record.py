"""One candidate before the gate: the evidence is gathered, the verdict decided, and both kept for good.

A gate is an artifact of kind `gate` (verdict.json, verdict.md, items.json) whose parents are the two subjects' answers
and whatever else it rests on. The same question finds the same verdict again. Earlier gates on the same documents are
counted, because every candidate tried on them is another chance to win by luck.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, StageResult, content_id
from tuneloop.config.schema import GateConfig
from tuneloop.errors import ArtifactError, UsageError
from tuneloop.evaluate.comparison.columns import columns_of
from tuneloop.evaluate.comparison.scores import SubjectAnswers
from tuneloop.evaluate.gate.ask import Questions, gain_from_labels, groups_from_labels
from tuneloop.evaluate.gate.decide import GateVerdict, decide
from tuneloop.evaluate.gate.evidence import GateEvidence, GateMetric, GeneralChange, SuiteResult
from tuneloop.evaluate.gate.labels import ITEMS_FILE
from tuneloop.evaluate.gate.labels import KIND as LABELS_KIND
from tuneloop.evaluate.gate.measure import about_candidate, gather_evidence
from tuneloop.evaluate.gate.words import as_markdown
from tuneloop.records import Example
from tuneloop.stats import reuse_alpha

KIND = "gate"
STAGE_VERSION = 2  # raise it when the same evidence would be judged otherwise
SAME_TEST_SET = 0.5  # sharing this part of the documents makes two test sets one


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A candidate and a champion that answered the same `items`: their answers, and the artifacts that hold them."""

    items: Sequence[Example]
    labels: Sequence[str]
    entity_types: Sequence[str]
    candidate: SubjectAnswers
    champion: SubjectAnswers
    candidate_artifact: Artifact
    champion_artifact: Artifact
    calibrations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.candidate_artifact.id == self.champion_artifact.id:
            raise UsageError(
                "candidate and champion gave the very same answers",
                where=f"{self.candidate.title} and {self.champion.title}",
                hint="Name two different subjects: tuneloop gate CANDIDATE CHAMPION.",
            )
        if not len(self.candidate.closed) == len(self.champion.closed) == len(self.items):
            raise ArtifactError(
                f"{len(self.candidate.closed)} and {len(self.champion.closed)} answers to {len(self.items)} documents",
                where=f"answers {self.candidate_artifact.id} and {self.champion_artifact.id}",
                hint="Ask both again with the same evaluate.max_examples and evaluate.seed.",
            )

    @property
    def parents(self) -> dict[str, str]:
        """Return role → id of what both sides' answers are in."""
        return {
            "candidate": self.candidate_artifact.id,
            "champion": self.champion_artifact.id,
            **self.calibrations,
        }

    def metric(self, config: GateConfig) -> GateMetric:
        """Return what decides. Raises: UsageError: the task has nothing of the kind."""
        metric: GateMetric = config.metric if config.metric != "auto" else "accuracy" if self.labels else "entity_f1"
        if not (self.entity_types if metric == "entity_f1" else self.labels):
            what = "entities" if metric == "entity_f1" else "labels"
            hint = "Set gate.metric to auto, or to one that fits task.kind."
            raise UsageError(f"the task has no {what}", where=f"gate.metric: {metric}", hint=hint)
        return metric


@dataclass(frozen=True, kw_only=True)
class Proofs:
    """What else is known about the candidate.

    `cases` runs the regression suite, which `cases_hash` identifies; `artifacts` are role → id of what the rest is in.
    """

    forgetting: GeneralChange | None = None
    cases: Callable[[], SuiteResult] | None = None
    cases_hash: str | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)


NO_PROOFS = Proofs()


def run_gate(
    pair: Pair, config: GateConfig, store: ArtifactStore, *, resamples: int = 10_000, proofs: Proofs = NO_PROOFS
) -> StageResult:
    """Decide on labelled documents and record the verdict; or find it decided."""
    inputs = _inputs(pair, config, proofs, {**pair.parents, **proofs.artifacts}, resamples)
    if (there := store.find(KIND, content_id(KIND, inputs))) is not None:
        return StageResult(there, is_skipped=True)
    evidence = gather_evidence(
        pair.items,
        pair.candidate,
        pair.champion,
        labels=pair.labels,
        entity_types=pair.entity_types,
        metric=pair.metric(config),
        confidence=config.confidence,
        candidate_number=candidate_number(pair, store),
        columns=columns_of(pair.items),
        forgetting=proofs.forgetting,
        cases=proofs.cases() if proofs.cases else None,
        resamples=resamples,
        seed=config.seed,
    )
    return _record(pair, decide(evidence, config), inputs, store)


def evidence_from_labels(
    pair: Pair,
    questions: Questions,
    known: Mapping[int, str | None],
    config: GateConfig,
    store: ArtifactStore,
    *,
    proofs: Proofs = NO_PROOFS,
) -> GateEvidence:
    """Return the evidence as far as people's labels so far go."""
    number = candidate_number(pair, store)
    alpha = reuse_alpha(number, 1 - config.confidence)
    unlabelled = [Example(id=item.id, text=item.text, source=item.source) for item in pair.items]
    measured = about_candidate(
        unlabelled, pair.candidate, pair.champion, labels=pair.labels, resamples=1_000, seed=config.seed
    )
    return GateEvidence(
        candidate=pair.candidate.title,
        champion=pair.champion.title,
        gain=gain_from_labels(questions, known, config, alpha),
        alpha=alpha,
        candidate_number=number,
        groups=groups_from_labels(questions, known, columns_of(unlabelled)),
        forgetting=proofs.forgetting,
        cases=proofs.cases() if proofs.cases else None,
        **measured,
    )


def record_labelled(
    pair: Pair,
    labels: Artifact,
    verdict: GateVerdict,
    config: GateConfig,
    store: ArtifactStore,
    *,
    proofs: Proofs = NO_PROOFS,
) -> StageResult:
    """Record a verdict that rests on people's labels; or find it recorded."""
    inputs = _inputs(pair, config, proofs, {**pair.parents, "labels": labels.id, **proofs.artifacts})
    if (there := store.find(KIND, content_id(KIND, inputs))) is not None:
        return StageResult(there, is_skipped=True)
    return _record(pair, verdict, inputs, store)


def candidate_number(pair: Pair, store: ArtifactStore) -> int:
    """Return which candidate this is on these documents, counted from 1 in the order in which they came to the gate.

    A pair keeps its number when it comes again. Test sets that share half of the smaller one's documents are one.
    """
    ours = {item.id for item in pair.items}
    seen: list[tuple[str | None, str | None]] = []
    for artifact in store:
        if artifact.kind not in (KIND, LABELS_KIND):
            continue
        theirs = set(json.loads((artifact.path / ITEMS_FILE).read_bytes()))
        who = (artifact.parents.get("candidate"), artifact.parents.get("champion"))
        if who not in seen and len(ours & theirs) >= SAME_TEST_SET * min(len(ours), len(theirs)):
            seen.append(who)
    me = (pair.candidate_artifact.id, pair.champion_artifact.id)
    return seen.index(me) + 1 if me in seen else len(seen) + 1


def _inputs(
    pair: Pair, config: GateConfig, proofs: Proofs, parents: Mapping[str, str], resamples: int | None = None
) -> dict[str, Any]:
    return {
        "stage_version": STAGE_VERSION,
        "parents": dict(parents),
        "conditions": config.model_dump(mode="json"),
        "declared": sorted(config.model_fields_set),  # what the configuration names must be measured
        "items": content_id("items", {"ids": [item.id for item in pair.items]}),
        "costs_usd": [pair.candidate.cost_usd, pair.champion.cost_usd],  # prices may change
        "cases": proofs.cases_hash,
        "resamples": resamples,
    }


def _record(pair: Pair, verdict: GateVerdict, inputs: Mapping[str, Any], store: ArtifactStore) -> StageResult:
    id = content_id(KIND, inputs)
    with store.build(KIND, id, parents=inputs["parents"], inputs=inputs) as build:
        content = json.dumps(verdict.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        (build.path / "verdict.json").write_text(content + "\n", encoding="utf-8")
        (build.path / "verdict.md").write_text(as_markdown(verdict), encoding="utf-8")
        (build.path / ITEMS_FILE).write_text(json.dumps(sorted(item.id for item in pair.items)) + "\n")
        build.summary.update({"outcome": verdict.outcome, "verdict": verdict.sentence, "labels": verdict.labels_used})
    return StageResult(store.get(id), is_skipped=False)
