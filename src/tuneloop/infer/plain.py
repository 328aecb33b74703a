"""The same answers the ordinary way: one forward pass for each candidate, and transformers' own `generate`.

Used for models whose attention cannot share a prefix, and as the yardstick that the fast way is tested against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tuneloop.infer.answering import Generated


@torch.inference_mode()
def score_candidates(model: PreTrainedModel, prompt: Sequence[int], candidates: Sequence[Sequence[int]]) -> Tensor:
    """Return the log-score of each candidate after one prompt (K,), each by a forward pass of its own."""
    device = next(model.parameters()).device
    scores = []
    for candidate in candidates:
        ids = torch.tensor([[*prompt, *candidate]], device=device)
        kept = len(candidate) + 1  # a model that ignores logits_to_keep returns all, and these are the last of them
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[0, -kept:-1]
        log_probabilities = logits.float().log_softmax(-1)
        scores.append(log_probabilities.gather(1, ids[0, len(prompt) :, None]).sum())
    return torch.stack(scores)


@dataclass(frozen=True)
class PlainNextTokens:
    """How likely tokens are to come next, by a forward pass for each sequence (an `engines.scoring.NextTokenModel`)."""

    model: PreTrainedModel

    @torch.inference_mode()
    def next_log_probabilities(
        self, sequences: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]
    ) -> list[Mapping[int, float]]:
        """Return, for each sequence of token ids, the log-probability of its wanted tokens."""
        return [self._after(sequence, tokens) for sequence, tokens in zip(sequences, wanted, strict=True)]

    def _after(self, sequence: Sequence[int], wanted: Sequence[int]) -> Mapping[int, float]:
        ids = torch.tensor([list(sequence)], device=next(self.model.parameters()).device)
        logits = self.model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1]
        return dict(zip(wanted, logits.float().log_softmax(-1)[list(wanted)].tolist(), strict=True))


@torch.inference_mode()
def generate_one(
    model: PreTrainedModel, prompt: Sequence[int], *, end_id: int, max_new_tokens: int, pad_id: int
) -> Generated:
    """Generate greedily after one prompt with `model.generate`."""
    ids = torch.tensor([list(prompt)], device=next(model.parameters()).device)
    output = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,  # many models bring a penalty of their own, which is not what they were tuned with
        no_repeat_ngram_size=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_id,
        pad_token_id=pad_id,
        use_cache=True,
        output_scores=True,
        return_dict_in_generate=True,
    )
    answer = output.sequences[0, len(prompt) :].tolist()
    scores = [float(s[0].float().log_softmax(-1)[t]) for s, t in zip(output.scores, answer, strict=True)]
    is_finished = bool(answer) and answer[-1] == end_id
    return Generated(tuple(answer[:-1] if is_finished else answer), tuple(scores), is_finished)
