"""Documents per second when the probability of each of 77 labels is wanted, exactly.

SmolLM2-135M-Instruct, fp32, Banking77's messages, an instruction that names all 77 labels. Ours reads the instruction
once and each message once, and scores the labels as a tree: whole (`sequence`), or as far as they differ
(`constrained`). `ours.docs_per_s` is of the whole ones, which is what the peers compute. Two peers: one plain forward
pass over prompt and label for each label (timed on a few labels of a few messages and scaled to 77, since one message
takes minutes), and transformers' `generate`, eight messages at a time, which gives one answer and no probabilities. All
are measured in turn within one process.

The checks compare probabilities with an independent computation, transformers' own key-value cache of the prompt and
all labels laid end to end under an explicit mask, and scores with those of the plain passes.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from _measure import banking77, machine, parser, show
from torch import Tensor
from transformers import DynamicCache

from tuneloop.config.schema import ModelConfig
from tuneloop.infer.labels import score_labels
from tuneloop.infer.plain import score_candidates
from tuneloop.infer.session import PrefixSession
from tuneloop.infer.tree import LabelTree
from tuneloop.models import prefix
from tuneloop.models.load import LoadedModel, load_model
from tuneloop.models.prompt import TaskPrompt
from tuneloop.models.rows import common_prefix
from tuneloop.progress import SILENT

GENERATED_AT_ONCE = 8
SEPARATE_LABELS = 8
NEW_TOKENS = 16


def main() -> None:
    """Run the benchmark."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--messages", type=int, default=500)
    arguments.add_argument("--checked", type=int, default=500, help="messages compared with the reference")
    given = arguments.parse_args()
    bench = _Bench(banking77(given.data), banking77(given.data, "test.csv")[: given.messages])
    rounds = max(given.rounds, 1)
    size = -(-len(bench.prompts) // rounds)
    for at in range(0, len(bench.prompts), size):
        bench.measure(range(at, min(at + size, len(bench.prompts))))
        print(f"  {at + size} of {len(bench.prompts)} messages: {bench.speeds}", file=sys.stderr)
    bench.check(given.checked)
    speeds = {name: statistics.median(values) for name, values in bench.speeds.items()}
    show(
        {
            "name": "label_scoring",
            "machine": machine(),
            "ours": {
                "docs_per_s": round(speeds["sequence"], 3),
                "constrained_docs_per_s": round(speeds["constrained"], 3),
            },
            "peer": {
                "separate_docs_per_s": round(speeds["separate"], 5),
                "generate_docs_per_s": round(speeds["generate"], 3),
            },
            "ratio": {
                "docs_per_s_vs_separate": round(speeds["sequence"] / speeds["separate"], 1),
                "docs_per_s_vs_generate": round(speeds["sequence"] / speeds["generate"], 2),
                "constrained_docs_per_s_vs_generate": round(speeds["constrained"] / speeds["generate"], 2),
            },
            "checks": bench.checks(),
        },
        as_json=given.json,
    )


class _Bench:
    def __init__(self, training: Sequence[Any], messages: Sequence[Any]) -> None:
        self.loaded: LoadedModel = load_model(ModelConfig(dtype="float32"), SILENT)
        labels = tuple(sorted({example.label for example in training}))
        self.task = TaskPrompt("classify", "Name the intent of the customer's message.", labels, ())
        chat, system = self.loaded.chat, self.task.system()
        self.prompts = [chat.prompt_ids(system, message.text) for message in messages]
        self.candidates = [chat.answer_ids([label]) for label in labels]
        self.trees = {
            "sequence": LabelTree.build(self.candidates),
            "constrained": LabelTree.of_beginnings(self.candidates),
        }
        self.shared = common_prefix(self.prompts)
        self.scores: dict[str, dict[int, Tensor]] = {scoring: {} for scoring in self.trees}
        self.speeds: dict[str, list[float]] = {name: [] for name in (*self.trees, "separate", "generate")}
        self.plain_errors: list[float] = []
        self.probability_errors: dict[str, list[float]] = {scoring: [] for scoring in self.trees}
        self.agreements: dict[str, list[bool]] = {scoring: [] for scoring in self.trees}

    def measure(self, members: range) -> None:
        """Measure every side on some of the messages, one side after the other."""
        for scoring in self.trees:
            self.speeds[scoring].append(self._ours(members, scoring))
        self.speeds["generate"].append(self._generate(list(members)[:GENERATED_AT_ONCE]))
        self.speeds["separate"].append(self._separate(members[0]))

    def _ours(self, members: range, scoring: str) -> float:
        prefix.install(self.loaded.model)
        started = time.perf_counter()
        session = PrefixSession(self.loaded.model, self.prompts[0][: self.shared])
        for documents in session.read([self.prompts[m][self.shared :] for m in members], 1024):
            scored = score_labels(session, documents, self.trees[scoring])
            for place, scores in zip(documents.row.members, scored.log_scores, strict=True):
                self.scores[scoring][members[place]] = scores
        return len(members) / (time.perf_counter() - started)

    def _separate(self, member: int) -> float:
        prefix.uninstall(self.loaded.model)
        labels = random.Random(member).sample(range(len(self.candidates)), SEPARATE_LABELS)
        started = time.perf_counter()
        plain = score_candidates(self.loaded.model, self.prompts[member], [self.candidates[i] for i in labels])
        seconds = (time.perf_counter() - started) / SEPARATE_LABELS * len(self.candidates)
        self.plain_errors.append(float((plain - self.scores["sequence"][member][labels]).abs().max()))
        return 1 / seconds

    @torch.inference_mode()
    def _generate(self, members: Sequence[int]) -> float:
        prefix.uninstall(self.loaded.model)
        tokenizer = self.loaded.chat.tokenizer
        pad = tokenizer.pad_token_id
        longest = max(len(self.prompts[m]) for m in members)
        ids = torch.tensor([[pad] * (longest - len(self.prompts[m])) + self.prompts[m] for m in members])
        mask = torch.tensor([[0] * (longest - len(self.prompts[m])) + [1] * len(self.prompts[m]) for m in members])
        started = time.perf_counter()
        self.loaded.model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=self.loaded.chat.end_of_turn_id,
            pad_token_id=pad,
            use_cache=True,
        )
        return len(members) / (time.perf_counter() - started)

    @torch.inference_mode()
    def check(self, count: int) -> None:
        """Compare the probabilities of `count` messages with those that transformers' own cache gives."""
        model = self.loaded.model
        prefix.uninstall(model)
        cache = DynamicCache(config=model.config)
        model(input_ids=torch.tensor([self.prompts[0][: self.shared]]), past_key_values=cache, use_cache=True)
        ids = torch.tensor([token for candidate in self.candidates for token in candidate[:-1]])
        owner = torch.tensor([number for number, c in enumerate(self.candidates) for _ in c[:-1]])
        depth = torch.tensor([place for c in self.candidates for place in range(len(c) - 1)])
        own = (owner[:, None] == owner) & (depth[:, None] >= depth)  # each label sees itself, and no other label
        for member in sorted(self.scores["sequence"])[:count]:
            rest = self.prompts[member][self.shared :]
            first = model(input_ids=torch.tensor([rest]), past_key_values=cache, logits_to_keep=1).logits[0]
            seen = self.shared + len(rest)
            mask = torch.cat([torch.ones(len(ids), seen, dtype=torch.bool), own], dim=1)[None, None]
            later = model(
                input_ids=ids[None],
                attention_mask=torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min),
                position_ids=(seen + depth)[None],
                past_key_values=cache,
            ).logits[0]
            cache.crop(-len(rest) - len(ids))
            steps = self._steps_of(first.log_softmax(-1), later.log_softmax(-1))
            for scoring, weighed in (("sequence", self._log_scores), ("constrained", self._log_shares)):
                found, expected = self.scores[scoring][member].softmax(0), weighed(steps).softmax(0)
                self.probability_errors[scoring].append(float((expected - found).abs().max()))
                self.agreements[scoring].append(bool(expected.argmax() == found.argmax()))

    def _steps_of(self, first: Tensor, later: Tensor) -> list[Tensor]:
        """Return each candidate's (L, V) log-probabilities of what comes at its places, from those after the prompt
        (1, V) and after each label token.
        """
        steps, at = [], 0
        for candidate in self.candidates:
            steps.append(torch.cat([first, later[at : at + len(candidate) - 1]]))
            at += len(candidate) - 1
        return steps

    def _log_scores(self, steps: Sequence[Tensor]) -> Tensor:
        """Return the log-probability of each candidate (K,)."""
        return torch.stack([s[range(len(c)), c].sum() for s, c in zip(steps, self.candidates, strict=True)])

    def _log_shares(self, steps: Sequence[Tensor]) -> Tensor:
        """Return each candidate's log-probability (K,) where only candidates may be written."""
        scores = torch.zeros(len(self.candidates))
        for number, candidate in enumerate(self.candidates):
            for place, token in enumerate(candidate):
                allowed = {other[place] for other in self.candidates if other[:place] == candidate[:place]}
                after = steps[number][place]
                scores[number] += after[token] - after[sorted(allowed)].logsumexp(0)
        return scores

    def checks(self) -> dict[str, Any]:
        """Return the agreement figures."""
        return {
            "messages": len(self.agreements["sequence"]),
            "argmax_agreement": statistics.mean(self.agreements["sequence"]),
            "probability_abs_error": max(self.probability_errors["sequence"]),
            "constrained_argmax_agreement": statistics.mean(self.agreements["constrained"]),
            "constrained_probability_abs_error": max(self.probability_errors["constrained"]),
            "log_score_abs_error_vs_plain": max(self.plain_errors),
        }


if __name__ == "__main__":
    main()
