"""How models are computed or asked that are not computed in this process: `serve.vllm` and `serve.openai`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tuneloop.config.section import Positive, Seconds, Section, Word

Concurrency = Annotated[int, Field(ge=1, le=256)]


class VllmConfig(Section):
    """vLLM, started and watched by tuneloop, or listening at `serve.engine_url`."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` measures what is fast here, as `model.dtype` does. bfloat16 halves the memory of weights and rounds label
    scores to about two digits; on CPUs without native support it is hundreds of times slower."""
    scoring: Literal["exact", "guided"] = "exact"
    """`exact` asks for the probability of every label that matters: answers, probabilities and calibration are those
    of the evaluated model. `guided` writes one answer that a grammar holds to the label set: fewer requests, but the
    first token decides greedily, and its probabilities are not calibrated."""
    concurrency: Concurrency = 32
    """Documents or label beginnings asked for at once: more fill the batches of a GPU, and wait longer each."""
    max_sequences: Positive = 128
    """Sequences that vLLM computes together (`--max-num-seqs`): more are faster under load and take memory."""
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.85
    """Share of a GPU's memory that vLLM takes for weights and cache; lower leaves room for other processes."""
    cpu_cache_gib: Positive = 2
    """Memory for the prefix cache on a CPU: more keeps more beginnings of prompts, and is taken at once."""
    gpus: Positive = 1
    """GPUs that a model is spread over (`--tensor-parallel-size`): for models that do not fit into one."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the model and record CUDA graphs: a minute more to start, and faster answers. `auto` does it on a GPU."""
    start_s: Seconds = 900.0
    """Give up on a start that takes longer. Large models take minutes to load."""
    restarts: Annotated[int, Field(ge=0)] = 5
    """Starts in a row that may fail, after a death, before vLLM is left alone. Each waits longer than the last."""
    arguments: tuple[Word, ...] = ()
    """Further arguments of `vllm serve`, as they stand on its command line; they win over those that tuneloop gives."""


class OpenAIConfig(Section):
    """Any address that offers OpenAI's chat completions: `serve.engine_url`, as URL#MODEL or openai/MODEL."""

    concurrency: Concurrency = 8
    """Requests under way at once: more are faster, and run into rate limits."""
    max_tokens: Positive = 1024
    """Longest answer to a document, thinking included; only what is written is paid."""
    total_s: Seconds = 60.0
    """Give up on a document that was not answered after this many seconds, waiting and retries included. A service
    keeps it below `serve.deadline_s` where late answers are worth nothing."""
