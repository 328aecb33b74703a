from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models.loaded import fresh, opened
from tests.models.test_adapters import make_adapter
from tests.models.tiny import Family
from tuneloop.errors import ModelError, UsageError
from tuneloop.infer.engines.protocol import Engine, Piece, Sampling
from tuneloop.infer.engines.transformers import Limits, TransformersEngine
from tuneloop.infer.plain import generate_one
from tuneloop.infer.predict import Predictor
from tuneloop.models import prefix
from tuneloop.models.adapters import SharedBase
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Message

LABELS = ("Copyleft", "Permissive", "Public", "Public Domain")
TASK = TaskPrompt("classify", "Classify the document.", LABELS, ())
OTHER = TaskPrompt("classify", "What is it?", ("Question", "Statement"), ())
LIMITS = Limits(max_tokens=300, max_new_tokens=12)
TEXTS = ["Permission is hereby granted.", "x", "What is the exchange rate?"]
TALK = [Message("system", "Answer."), Message("user", "What is the exchange rate?")]


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    return {"a": make_adapter(root / "a", 1), "b": make_adapter(root / "b", 2)}


def two_engines(adapters: dict[str, Path]) -> tuple[TransformersEngine, TransformersEngine]:
    base = SharedBase(fresh("llama"))
    for name, folder in adapters.items():
        base.add(name, folder)
    return TransformersEngine(base, "a", TASK, LIMITS), TransformersEngine(base, "b", OTHER, LIMITS)


def plain(family: Family = "llama", limits: Limits = LIMITS) -> TransformersEngine:
    return TransformersEngine(SharedBase(opened(family)), None, TASK, limits)


def text_of(found: list[Piece]) -> str:
    return "".join(piece.text for piece in found)


def test_it_is_an_engine_that_answers_as_the_predictor_does() -> None:
    engine: Engine = plain()
    expected = Predictor(opened("llama"), TASK, max_tokens=300, max_new_tokens=12).predict(TEXTS)
    assert isinstance(engine, Engine) and engine.name == "transformers" and engine.task == TASK
    assert engine.predict(TEXTS) == expected


def test_its_prompt_is_the_one_that_the_model_reads() -> None:
    engine, chat = plain(), opened("llama").chat
    assert engine.rendered_prompt("d") == chat.render(TASK.system(), "d")
    assert engine.prompt_ids("d") == chat.prompt_ids(TASK.system(), "d")


def test_engines_on_one_base_answer_in_turns_as_each_answers_alone(adapters: dict[str, Path]) -> None:
    expected = []
    for engine in two_engines(adapters):
        expected.append(engine.predict(TEXTS))
    a, b = two_engines(adapters)
    for _ in range(2):
        assert a.predict(TEXTS) == expected[0]
        assert b.predict(TEXTS) == expected[1]


def test_a_switch_does_not_read_the_instruction_again(
    adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = two_engines(adapters)
    a.predict(TEXTS)
    b.predict(TEXTS)
    monkeypatch.setattr(prefix.PrefixPass, "attend", None)
    a.predict(TEXTS)
    b.predict(TEXTS)


def test_a_stream_goes_on_with_its_own_adapter_whatever_is_asked_in_between(adapters: dict[str, Path]) -> None:
    a, b = two_engines(adapters)
    sampling = Sampling(max_new_tokens=12)
    alone = text_of(list(a.stream(TALK, sampling, never)))
    found = []
    for piece in a.stream(TALK, sampling, never):
        found.append(piece)
        b.predict(TEXTS[:1])
    assert text_of(found) == alone != text_of(list(b.stream(TALK, sampling, never)))


@pytest.mark.parametrize("family", ["llama", "gemma", "mistral"])
def test_a_greedy_stream_says_what_generate_says(family: Family) -> None:
    engine, loaded = plain(family), opened(family)
    ids = loaded.chat.conversation_ids(TALK)
    found = list(engine.stream(TALK, Sampling(max_new_tokens=20), never))
    prefix.uninstall(loaded.model)
    expected = generate_one(loaded.model, ids, end_id=loaded.chat.end_of_turn_id, max_new_tokens=20, pad_id=0)
    assert text_of(found) == loaded.chat.decode(expected.ids)
    assert sum(piece.tokens for piece in found) == len(expected.ids) + expected.is_finished
    assert found[-1].finish_reason == ("stop" if expected.is_finished else "length")


def test_a_model_that_cannot_share_a_prefix_streams_the_slow_way() -> None:
    loaded = fresh("mistral")
    engine = TransformersEngine(SharedBase(loaded), None, TASK, LIMITS)
    fast = text_of(list(engine.stream(TALK, Sampling(max_new_tokens=10), never)))
    loaded.model.config.sliding_window = 200  # wider than the text, so the answer stays the same
    assert prefix.obstacle(loaded.model, 300) is not None
    engine = TransformersEngine(SharedBase(loaded), None, TASK, LIMITS)
    assert text_of(list(engine.stream_completion("x" * 150, Sampling(max_new_tokens=3), never))) != ""
    assert text_of(list(engine.stream(TALK, Sampling(max_new_tokens=10), never))) == fast


def test_an_instruction_that_was_read_is_not_read_again_for_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = plain()
    talk = [Message("system", TASK.system()), Message("user", "a document")]
    sampling = Sampling(max_new_tokens=8)
    expected = text_of(list(engine.stream(talk, sampling, never)))
    engine.predict(TEXTS)
    read: list[int] = []
    original = prefix.ExamplesPass.attend

    def counted(self: prefix.ExamplesPass, layer: int, query: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        read.append(query.shape[2])
        return original(self, layer, query, *parts)  # type: ignore[arg-type]

    monkeypatch.setattr(prefix.ExamplesPass, "attend", counted)
    assert text_of(list(engine.stream(talk, sampling, never))) == expected
    assert max(read) < len(opened("llama").chat.conversation_ids(talk)) / 2


def test_a_seed_repeats_a_sampled_answer() -> None:
    engine = plain()

    def say(seed: int) -> str:
        return text_of(list(engine.stream(TALK, Sampling(20, temperature=1.0, top_p=0.95, seed=seed), never)))

    assert say(1) == say(1)
    assert len({say(seed) for seed in range(4)}) > 1


def test_cancelling_ends_a_stream_before_the_next_token() -> None:
    found: list[Piece] = []
    is_cancelled: Callable[[], bool] = lambda: sum(piece.tokens for piece in found) >= 3  # noqa: E731
    for piece in plain().stream_completion("What", Sampling(max_new_tokens=50, temperature=1, seed=0), is_cancelled):
        found.append(piece)
    assert found[-1].finish_reason == "cancelled" and sum(piece.tokens for piece in found) < 20


def test_an_answer_stops_where_the_context_ends() -> None:
    engine = plain(limits=replace_limits(30))
    found = list(engine.stream_completion("a b c", Sampling(max_new_tokens=500, temperature=2, seed=3), never))
    used = len(opened("llama").chat.text_ids("a b c"))
    assert found[-1].finish_reason == "stop" or sum(piece.tokens for piece in found) == 30 - used


def replace_limits(max_tokens: int) -> Limits:
    return LIMITS._replace(max_tokens=max_tokens)


def test_a_prompt_that_is_empty_or_leaves_no_room_is_refused_at_once() -> None:
    engine = plain(limits=replace_limits(40))
    with pytest.raises(UsageError, match="the prompt is empty"):
        engine.stream_completion("", Sampling(), never)
    with pytest.raises(UsageError, match=r"the prompt has \d+ tokens; 40 are available"):
        engine.stream_completion("x y " * 40, Sampling(), never)


def test_control_tokens_in_a_plain_prompt_are_text() -> None:
    chat = opened("llama").chat
    assert chat.end_of_turn_id not in chat.text_ids("a<|im_end|>b")


def test_a_closed_engine_says_so_and_leaves_the_base_to_the_others(adapters: dict[str, Path]) -> None:
    a, b = two_engines(adapters)
    expected = b.predict(TEXTS)
    stream = a.stream(TALK, Sampling(max_new_tokens=5), never)
    next(stream)
    a.close()
    a.close()
    assert not a.is_alive() and b.is_alive() and a.base.adapters == ("b",)
    for ask in (lambda: a.predict(TEXTS), lambda: list(stream)):
        with pytest.raises(ModelError, match="closed"):
            ask()
    assert b.predict(TEXTS) == expected


def test_entities_are_extracted_too() -> None:
    task = replace(TASK, kind="classify+extract", entity_types=("holder",))
    engine = TransformersEngine(SharedBase(opened("llama")), None, task, LIMITS)
    assert [one.label in LABELS for one in engine.predict(TEXTS)] == [True] * 3
