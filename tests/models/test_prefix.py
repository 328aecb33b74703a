from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from tests.models.loaded import fresh_model, random_examples, tiny_folder
from tests.models.tiny import FAMILIES, Family
from tuneloop.models import lean, prefix
from tuneloop.models.prefix import IMPLEMENTATION, ExamplesPass, KeyValues, PrefixPass
from tuneloop.models.rows import plan_rows, row_tensors
from tuneloop.train.adapters import add_lora
from tuneloop.train.batches import TokenizedExample
from tuneloop.train.objectives.sft import Normalization, Objective, PaddedLoss, SharedPrefixLoss

RESTS, ANSWERS = (9, 30, 8, 17, 1, 9, 29), (3, 1, 4, 2, 6, 3, 1)
Gradients = dict[str, Tensor]


def one_at_a_time(model: Any, batch: Sequence[TokenizedExample], normalization: Normalization) -> float:
    """The loss as a textbook has it; adds its gradient."""
    prefix.uninstall(model)
    all_answers = sum(len(example.answer) for example in batch)
    total = 0.0
    for example in batch:
        ids = torch.tensor([example.ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, len(example.prompt) - 1 : -1]
        loss: Any = functional.cross_entropy(logits, torch.tensor(example.answer), reduction="sum")
        loss = loss / (all_answers if normalization == "token" else len(batch) * len(example.answer))
        loss.backward()
        total += loss.item()
    return total


def gradients(model: Any) -> Gradients:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def relative_error(found: Gradients, expected: Gradients) -> float:
    assert found.keys() == expected.keys() and expected
    difference = math.sqrt(sum(float((found[name] - expected[name]).square().sum()) for name in expected))
    return difference / math.sqrt(sum(float(part.square().sum()) for part in expected.values()))


def with_lora(model: Any) -> Any:
    """Add LoRA layers that already do something (B is zero in new ones, and so are half of the gradients)."""
    adapted = add_lora(model, r=4, alpha=8, dropout=0.0, target_modules="all-linear", seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def check_equal(
    model: Any, loss: Objective, batch: Sequence[TokenizedExample], normalization: Normalization = "example"
) -> None:
    expected_loss, expected = one_at_a_time(model, batch, normalization), gradients(model)
    found_loss, found = loss(batch, backward=True), gradients(model)
    assert found_loss == pytest.approx(expected_loss, rel=1e-6)
    assert relative_error(found, expected) < 1e-5
    assert loss(batch, backward=False) == pytest.approx(expected_loss, rel=1e-6)
    assert not gradients(model)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("normalization", ["example", "token"])
def test_loss_and_gradients_with_lora_are_those_of_one_example_at_a_time(
    family: Family, normalization: Normalization
) -> None:
    shared, batch = random_examples(40, RESTS, ANSWERS)
    model = with_lora(fresh_model(family))
    check_equal(model, SharedPrefixLoss(model, shared, 50, normalization), batch, normalization)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 40])
def test_loss_and_gradients_of_all_parameters_are_those_of_one_example_at_a_time(family: Family, shared: int) -> None:
    common, batch = random_examples(shared, RESTS, ANSWERS)
    model = fresh_model(family)
    check_equal(model, SharedPrefixLoss(model, common, 50), batch)


@pytest.mark.parametrize("family", FAMILIES)
def test_lean_layers_change_neither_loss_nor_gradients(family: Family) -> None:
    shared, batch = random_examples(20, RESTS, ANSWERS)
    model = with_lora(fresh_model(family))
    expected_loss, expected = one_at_a_time(model, batch, "example"), gradients(model)
    assert set(lean.install(model)) >= {"norm", "mlp", "lora"}
    assert SharedPrefixLoss(model, shared, 60)(batch, backward=True) == pytest.approx(expected_loss, rel=1e-6)
    assert relative_error(gradients(model), expected) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("all_parameters", [True, False])
def test_gradient_checkpointing_changes_nothing(family: Family, all_parameters: bool) -> None:
    shared, batch = random_examples(20, RESTS, ANSWERS)
    model = fresh_model(family) if all_parameters else with_lora(fresh_model(family))
    expected_loss, expected = one_at_a_time(model, batch, "example"), gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    with counted_recomputations(model) as count:
        found = SharedPrefixLoss(model, shared, 60)(batch, backward=True)
    assert count[0] > 2 * model.config.num_hidden_layers  # it is really on: layers ran again in the backward pass
    assert found == pytest.approx(expected_loss, rel=1e-6)
    assert relative_error(gradients(model), expected) < 1e-5


@contextmanager
def counted_recomputations(model: Any) -> Iterator[list[int]]:
    count = [0]

    def add_one(*_: object) -> None:
        count[0] += torch._C._current_graph_task_id() != -1  # -1 outside a backward pass

    handles = [layer.self_attn.register_forward_pre_hook(add_one) for layer in model.model.layers]
    yield count
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("tokens_per_row", [1, 37, 64, 10_000])
def test_the_result_does_not_depend_on_how_many_tokens_a_row_has(tokens_per_row: int) -> None:
    shared, batch = random_examples(11, RESTS, ANSWERS)
    model = fresh_model("qwen2")
    check_equal(model, SharedPrefixLoss(model, shared, tokens_per_row), batch)


def test_the_order_of_the_batch_does_not_matter() -> None:
    shared, batch = random_examples(11, RESTS, ANSWERS)
    model = fresh_model("llama")
    loss = SharedPrefixLoss(model, shared, 60)
    expected_loss, expected = loss(batch, backward=True), gradients(model)
    assert loss(batch[::-1], backward=True) == pytest.approx(expected_loss, rel=1e-6)
    assert relative_error(gradients(model), expected) < 1e-5


def test_gradients_are_added_to_those_that_are_there() -> None:
    shared, batch = random_examples(11, RESTS[:4], ANSWERS[:4])
    model = fresh_model("llama")
    whole, half = SharedPrefixLoss(model, shared, 60), batch[:2]
    whole(batch, backward=True)
    expected = {name: 2 * grad for name, grad in gradients(model).items()}
    for part in (half, batch[2:]):
        whole(part, backward=True)
    assert relative_error(gradients(model), expected) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("normalization", ["example", "token"])
def test_the_padded_loss_equals_one_example_at_a_time_too(family: Family, normalization: Normalization) -> None:
    _, batch = random_examples(10, RESTS, ANSWERS)
    model = with_lora(fresh_model(family))
    prefix.install(model)  # as after a shared-prefix pass
    check_equal(model, PaddedLoss(model, 2, 120, normalization), batch, normalization)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_sees_the_prefix_and_its_own_sequence_alone(family: Family) -> None:
    """Logits of all tokens, not only of those that losses look at."""
    common, examples = random_examples(13, RESTS, ANSWERS)
    rests = [example.ids[13:] for example in examples]
    model = fresh_model(family)
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([[*common, *rest]]), use_cache=False).logits[0, 13:] for rest in rests]
        prefix.install(model)
        (row,) = plan_rows([len(rest) for rest in rests], 1000, waste=0.1)
        reading = PrefixPass()
        model(input_ids=torch.tensor([common]), use_cache=False, shared_prefix=reading)
        assert len(reading.remembered) == 13
        ids, positions = row_tensors(rests, row, 13, torch.device("cpu"))
        attend = ExamplesPass(row.blocks, reading.remembered)
        logits = model(input_ids=ids, position_ids=positions, use_cache=False, shared_prefix=attend).logits[0]
    for member, start in zip(row.members, row.starts(), strict=True):
        found = logits[start : start + len(rests[member])]
        torch.testing.assert_close(found, alone[member], rtol=1e-4, atol=1e-4)


def test_a_model_that_is_installed_needs_a_pass_and_uninstalled_has_its_own_attention_back() -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder("llama"), attn_implementation="eager")
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    prefix.install(model)
    prefix.install(model)
    assert model.config._attn_implementation == IMPLEMENTATION
    with pytest.raises(RuntimeError, match="shared_prefix"):
        model(input_ids=ids)
    prefix.uninstall(model)
    prefix.uninstall(model)
    assert model.config._attn_implementation == "eager"
    assert torch.equal(model(input_ids=ids).logits, before)


def test_no_keys_and_values_are_false_and_count_as_none() -> None:
    assert not KeyValues() and len(KeyValues()) == 0


SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip


def small(model_type: str, **particular: Any) -> Any:
    config = AutoConfig.for_model(model_type, **(SMALL | particular))
    return AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_in_the_way_of_the_five_families(family: Family) -> None:
    assert prefix.obstacle(fresh_model(family), 512) is None


@pytest.mark.parametrize(
    ("model_type", "particular", "reason"),
    [
        ("gemma2", {}, "caps its attention logits"),
        ("gpt_oss", {"num_local_experts": 2, "sliding_window": None}, "attention sinks"),
        ("mamba", {"state_size": 4}, "does not use transformers' attention interface"),
        ("bloom", {"n_head": 2}, "does not use transformers' attention interface"),
        ("recurrent_gemma", {"attention_window_size": 4096, "lru_width": 32}, "layers that are not attention"),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, "layers that are not attention"),
        (
            "deepseek_v3",
            {
                "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "kv_lora_rank": 8, "q_lora_rank": 8,
                "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 1,
                "first_k_dense_replace": 2, "num_key_value_heads": 2, "head_dim": 8,
            },
            "values of another width",
        ),
    ],
)  # fmt: skip
def test_a_model_that_attends_in_another_way_is_refused_with_the_reason(
    model_type: str, particular: dict[str, Any], reason: str
) -> None:
    found = prefix.obstacle(small(model_type, **particular), 100)
    assert found is not None and reason in found and model_type in found


def test_a_window_is_in_the_way_of_longer_examples_only() -> None:
    model = small("mistral", sliding_window=64)
    assert prefix.obstacle(model, 64) is None
    found = prefix.obstacle(model, 65)
    assert found is not None and "64 tokens" in found and "65" in found


def test_a_window_that_no_layer_uses_is_not_in_the_way() -> None:
    assert prefix.obstacle(small("qwen2", sliding_window=64, use_sliding_window=False), 500) is None
    full = small("gemma3_text", sliding_window=64, layer_types=["full_attention"] * 2)
    assert prefix.obstacle(full, 500) is None


def test_a_window_of_exactly_the_examples_length_computes_the_same() -> None:
    model = small("mistral", sliding_window=48)
    shared, batch = random_examples(20, (10, 20, 24), (2, 3, 4))
    batch = [TokenizedExample(e.id, tuple(t % 64 for t in e.prompt), tuple(t % 64 for t in e.answer)) for e in batch]
    assert max(len(example.ids) for example in batch) == 48
    check_equal(model, SharedPrefixLoss(model, tuple(t % 64 for t in shared), 60), batch)


def test_attention_scores_that_a_model_changes_are_never_silently_ignored() -> None:
    model = small("gemma2")
    prefix.install(model)
    with pytest.raises(RuntimeError, match="changes its attention scores"):
        model(input_ids=torch.tensor([[5, 6]]), use_cache=False, shared_prefix=PrefixPass())
