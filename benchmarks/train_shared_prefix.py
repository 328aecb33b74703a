"""Examples per second and peak memory of supervised fine-tuning, against TRL's SFTTrainer.

Same model (SmolLM2-135M-Instruct), data (Banking77), LoRA (r=16, all linear layers) and precision (fp32) on both sides,
each measurement in a process of its own, the sides in turn. Ours takes an optimizer step every 32 examples, TRL, as its
documentation shows it, every 8, its default batch a device (the optimizer's own time is under 1 % of a step). TRL's
gradient checkpointing, on by default, would slow it down and is off unless --peer-checkpointing is given.
Long prefix: the instruction names all 77 labels. Short prefix: one
sentence.

The checks compare loss and gradient with plain one-example-at-a-time training, for two model families.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _measure import SHORT_INSTRUCTION, banking77, in_child, machine, median_of, parser, peak_memory_gib, show

from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import SILENT
from tuneloop.records import Example

BATCH = 32
LEARNING_RATE = 2e-4
OURS_EXAMPLES = {"long": 96, "short": 192}
PEER_EXAMPLES = {"long": 8, "short": 64}
CHECK_EXAMPLES = 8


def main() -> None:
    """Run the benchmark, or (with --child) one measurement of it."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--peer-checkpointing", action="store_true", help="leave TRL's gradient checkpointing on")
    arguments.add_argument("--child", nargs=2, metavar=("WHAT", "PREFIX"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        what, length = given.child
        measured = {"ours": _ours, "peer": _peer, "checks": _checks, "growth": _growth}[what](length, given)
        print(json.dumps(measured))
        return
    extra = ["--data", str(given.data), *(["--peer-checkpointing"] if given.peer_checkpointing else [])]
    sides: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for length, rounds in (("long", given.rounds), ("short", given.rounds)):
        for _ in range(rounds):
            for side in ("ours", "peer"):
                sides.setdefault((side, length), []).append(in_child(__file__, side, length, *extra))
    checks = in_child(__file__, "checks", "long", *extra) | in_child(__file__, "growth", "long", *extra)
    show(_result(sides, checks), as_json=given.json)


def _result(sides: dict[tuple[str, str], list[dict[str, Any]]], checks: dict[str, Any]) -> dict[str, Any]:
    figures = {
        side: {
            f"{length}_prefix_{key}": round(median_of(sides[side, length], key), 3)
            for length in ("long", "short")
            for key in ("examples_per_s", "peak_memory_gib")
        }
        for side in ("ours", "peer")
    }
    ours, peer = figures["ours"], figures["peer"]
    share = median_of(sides["ours", "long"], "share_of_matmul_peak")
    return {
        "name": "train_shared_prefix",
        "machine": machine(),
        "ours": ours,
        "peer": peer,
        "ratio": {
            "long_prefix_examples_per_s": round(
                ours["long_prefix_examples_per_s"] / peer["long_prefix_examples_per_s"], 2
            ),
            "short_prefix_examples_per_s": round(
                ours["short_prefix_examples_per_s"] / peer["short_prefix_examples_per_s"], 2
            ),
            "long_prefix_peak_memory": round(
                peer["long_prefix_peak_memory_gib"] / ours["long_prefix_peak_memory_gib"], 2
            ),
        },
        "checks": {**checks, "share_of_matmul_peak": round(share, 3)},
    }


def _task(examples: Sequence[Example], length: str) -> TaskPrompt:
    labels = tuple(sorted({example.label or "" for example in examples}))
    return TaskPrompt("classify", SHORT_INSTRUCTION, labels, (), name_labels=length == "long")


def _ours(length: str, given: argparse.Namespace) -> dict[str, Any]:
    from tuneloop.hardware import matmul_gflops

    training = _Training(length, given.data, OURS_EXAMPLES[length] + BATCH)
    training.step(training.examples[:BATCH])
    started = time.perf_counter()
    for at in range(BATCH, len(training.examples), BATCH):
        training.step(training.examples[at : at + BATCH])
    seconds = time.perf_counter() - started
    peak = matmul_gflops("float32", shape=(1024, 576, 1536), budget_s=float("inf"))
    return {
        "examples_per_s": OURS_EXAMPLES[length] / seconds,
        "peak_memory_gib": peak_memory_gib(),
        "share_of_matmul_peak": training.gflop(training.examples[BATCH:]) / seconds / peak,
    }


class _Training:
    """tuneloop's own training step, without files around it."""

    def __init__(self, length: str, data: Path, count: int, folder: Path | None = None) -> None:
        import torch

        from tuneloop.config.schema import ModelConfig
        from tuneloop.models import lean
        from tuneloop.models.load import load_model
        from tuneloop.train.adapters import add_lora, trainable
        from tuneloop.train.batches import shared_prefix, tokenize
        from tuneloop.train.objectives.sft import SharedPrefixLoss

        everything = banking77(data)
        name = str(folder) if folder else "embedded"
        loaded = load_model(ModelConfig(base_model=name, dtype="float32"), SILENT)
        self.examples = tokenize(everything[:count], _task(everything, length), loaded.chat, 4096)
        self.prefix = self.examples[0].prompt[: shared_prefix(self.examples)]
        self.model = add_lora(loaded.model, r=16, alpha=32, dropout=0.0, target_modules="all-linear", seed=0)
        lean.install(self.model)
        self.inner = loaded.model
        self.loss = SharedPrefixLoss(loaded.model, self.prefix, tokens_per_row=1024)
        self.optimizer = torch.optim.AdamW(trainable(self.model), lr=LEARNING_RATE)

    def step(self, batch: Sequence[Any]) -> None:
        """Do one optimizer step."""
        self.loss(batch, backward=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def gflop(self, examples: Sequence[Any]) -> float:
        """Return the operations that training on these examples takes, in batches of `BATCH`.

        Linear layers: 2 per weight and token forward, 2 backward (base weights are frozen), 6 for adapter weights;
        the LM head at answer tokens; attention of every rest to the prefix and to itself, backward 2.5 times forward
        (Dao 2023). Operations that padding or recomputation would add are not counted.
        """
        config = self.inner.config
        adapter = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        head = config.vocab_size * config.hidden_size
        base = sum(p.numel() for p in self.model.parameters()) - adapter - head
        prefix, batches = len(self.prefix), len(examples) / BATCH
        rests = [len(example.ids) - prefix for example in examples]
        tokens = sum(rests) + prefix * batches
        pairs = sum(rest * prefix + rest * rest / 2 for rest in rests) + batches * prefix * prefix / 2
        attention = pairs * config.num_hidden_layers * config.num_attention_heads * config.head_dim * 4 * 3.5
        answers = sum(len(example.answer) for example in examples)
        return float(tokens * (4 * base + 6 * adapter) + answers * 4 * head + attention) / 1e9


def _peer(length: str, given: argparse.Namespace) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined,unused-ignore]

    from tuneloop.models.embedded import embedded_base_model

    everything = banking77(given.data)
    system = _task(everything, length).system()
    count = PEER_EXAMPLES[length]
    rows = [
        {
            "prompt": [{"role": "system", "content": system}, {"role": "user", "content": example.text}],
            "completion": [{"role": "assistant", "content": example.label}],
        }
        for example in everything[: count + 8]
    ]
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=8,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=given.peer_checkpointing,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            model=str(embedded_base_model(SILENT)),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM"
            ),
            callbacks=[Clock()],
        )
        sys.stdout = sys.stderr
        trainer.train()
        sys.stdout = sys.__stdout__
    return {"examples_per_s": count / (clock[-1] - clock[0]), "peak_memory_gib": peak_memory_gib()}


def _checks(length: str, given: argparse.Namespace) -> dict[str, Any]:
    """Compare loss and gradient with plain training for SmolLM2 (Llama family) and a random model of Qwen2's."""
    with tempfile.TemporaryDirectory() as folder:
        errors = [_errors(length, given.data, None), _errors(length, given.data, _random_qwen2(Path(folder)))]
    return {
        "families": "llama, qwen2",
        "loss_abs_error": max(error[0] for error in errors),
        "grad_rel_error": max(error[1] for error in errors),
        "grad_rel_error_worst_parameter": max(error[2] for error in errors),
    }


def _errors(length: str, data: Path, folder: Path | None) -> tuple[float, float, float]:
    import torch
    from torch.nn import functional

    training = _Training(length, data, CHECK_EXAMPLES, folder)
    parameters = [p for p in training.model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:  # B starts at zero, which would leave A without a gradient
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    ours = training.loss(training.examples, backward=True)
    gradients = [p.grad.clone() for p in parameters if p.grad is not None]
    training.model.zero_grad()
    training.inner.set_attn_implementation("sdpa")
    plain = 0.0
    for example in training.examples:
        ids = torch.tensor([example.ids])
        logits = training.inner(input_ids=ids, use_cache=False).logits[0, len(example.prompt) - 1 : -1]
        loss = functional.cross_entropy(logits, torch.tensor(example.answer)) / len(training.examples)
        loss.backward()  # type: ignore[no-untyped-call]
        plain += loss.item()
    expected = [p.grad for p in parameters if p.grad is not None]
    apart = [float((a - b).norm()) for a, b in zip(gradients, expected, strict=True)]
    norms = [float(b.norm()) for b in expected]
    whole = sum(x * x for x in apart) ** 0.5 / sum(x * x for x in norms) ** 0.5
    return abs(ours - plain), whole, max(x / norm for x, norm in zip(apart, norms, strict=True) if norm)


def _random_qwen2(folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    from tuneloop.models.embedded import embedded_base_model

    tokenizer = AutoTokenizer.from_pretrained(embedded_base_model(SILENT))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    settings = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    Qwen2ForCausalLM(settings).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def _growth(length: str, given: argparse.Namespace) -> dict[str, Any]:
    """Time one step on 32 and one on 128 examples, in turn: linear cost gives 4."""
    training = _Training(length, given.data, 4 * BATCH)
    few, many = training.examples[::4], training.examples
    training.step(few)
    seconds: dict[int, list[float]] = {len(few): [], len(many): []}
    for _ in range(given.rounds):
        for batch in (few, many):
            started = time.perf_counter()
            training.step(batch)
            seconds[len(batch)].append(time.perf_counter() - started)
    small, large = (sorted(times)[len(times) // 2] for times in seconds.values())
    return {"cost_growth_at_4x_examples": round(large / small, 3), "examples_per_s_at_batch_128": round(128 / large, 3)}


if __name__ == "__main__":
    main()
