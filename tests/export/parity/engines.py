"""Tiny engines of one task, as they should be and with a defect planted in each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.models.loaded import tiny_folder
from tuneloop.infer.engines.protocol import Piece, Sampling
from tuneloop.infer.predict import Mode, Predictor
from tuneloop.models.chat import ChatFormat
from tuneloop.models.load import LoadedModel
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import Example, Message, Prediction

LABELS = tuple("ABCDEFGHIJKL")  # a token each, so that the random model answers now this and now that
TASK = TaskPrompt("classify", "Classify the document.", LABELS, ())
RANK, ALPHA = 4, 8
EFFECT = 0.03  # of the adapter: enough to change most answers
RESERVED = "All rights reserved. "


class TinyEngine:
    """A predictor as an engine; what it generates freely is nothing."""

    name = "transformers"

    def __init__(self, loaded: LoadedModel, task: TaskPrompt = TASK) -> None:
        self.loaded, self._task = loaded, task
        self.predictor: Predictor | None = Predictor(loaded, task, max_new_tokens=12)
        self.calls = 0

    @property
    def task(self) -> TaskPrompt:
        return self._task

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        assert self.predictor is not None
        self.calls += 1
        return self.predictor.predict(texts, mode, advance)

    def rendered_prompt(self, text: str) -> str:
        return self.loaded.chat.render(self._task.system(), text)

    def prompt_ids(self, text: str) -> list[int]:
        return self.loaded.chat.prompt_ids(self._task.system(), text)

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        return iter(())

    def stream_completion(self, prompt: str, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        return iter(())

    def is_alive(self) -> bool:
        return self.predictor is not None

    def close(self) -> None:
        self.predictor = None


class ChangedEngine(TinyEngine):
    """An engine whose answers go through a function."""

    def __init__(self, loaded: LoadedModel, change: Callable[[int, Prediction], Prediction]) -> None:
        super().__init__(loaded)
        self.change = change

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        answers = super().predict(texts, mode, advance)
        return [self.change(number, answer) for number, answer in enumerate(answers)]


def items(count: int = 24) -> list[Example]:
    """Return documents with labels, as a test split has them."""
    holders = ("Ada", "Example Corporation", "the authors", "nobody")
    return [
        Example(
            id=f"item-{number:03d}",
            text=f"Copyright {1990 + number} {holders[number % 4]}. {RESERVED * (number % 5)}No {number}.",
            label=LABELS[number % len(LABELS)],
        )
        for number in range(count)
    ]


def tuned(scale: float = ALPHA / RANK) -> LoadedModel:
    """Return the tiny model with an adapter merged into it at `scale`; 0 is the model without."""
    model = untouched()
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        adapted: Any = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=EFFECT, generator=torch.Generator().manual_seed(3))
                parameter.mul_(scale)
    merged = adapted.merge_and_unload()
    merged.eval()
    return LoadedModel(merged, chat(), torch.device("cpu"), torch.float32)


def untouched() -> Any:
    """Return a copy of the tiny model as it was made."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"))
    return model.eval()


def chat(template: str | None = None, added: Sequence[str] = ()) -> ChatFormat:
    """Return the tiny model's chat format, with another template or with tokens added to its tokenizer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_folder("llama"))
    if template is not None:
        tokenizer.chat_template = template
    tokenizer.add_tokens(list(added))
    return ChatFormat(tokenizer)


def with_chat(loaded: LoadedModel, other: ChatFormat) -> LoadedModel:
    """Return a model that is talked to in another way."""
    return replace(loaded, chat=other)


def with_token(loaded: LoadedModel, token: str) -> LoadedModel:
    """Return a copy with a token more: in its tokenizer, and with an embedding of its own."""
    copied = replace(loaded, model=untouched(), chat=chat(added=[token]))
    copied.model.load_state_dict(loaded.model.state_dict())
    copied.model.resize_token_embeddings(len(copied.chat.tokenizer), mean_resizing=False)
    return copied


def rounded(loaded: LoadedModel, bits: int) -> LoadedModel:
    """Return a copy whose weights are rounded to so many bits each, with one scale for a whole matrix."""
    copied = replace(loaded, model=untouched())
    copied.model.load_state_dict(loaded.model.state_dict())
    with torch.no_grad():
        for parameter in copied.model.parameters():
            if parameter.ndim == 2:
                step = parameter.abs().max() / (2 ** (bits - 1) - 1)
                parameter.copy_((parameter / step).round() * step)
    return copied
