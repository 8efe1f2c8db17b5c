"""Every setting that can change a result, with its default and its meaning.

A field's description is at once the comment in `config.yaml` and the help of its flag; `setting` takes the flags' names
where they are not the field's own. `config.py` turns settings into YAML and back; `store/run.py` holds the file.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from activedpo_cli.base.discovery import available
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.server_url import checked_base_url, checked_server_url
from activedpo_cli.base.template_date import TEMPLATE_DATE, checked_date
from activedpo_cli.base.template_kwargs import checked_assignments

Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
WrongShare = Annotated[float, Field(ge=0, lt=0.5)]

FROM_OVERLAP = "overlap"
"""The value of `train.label_smoothing` that has the share of wrong labels estimated."""
Positive = Annotated[float, Field(gt=0)]
LearningRate = Annotated[float, Field(gt=0, le=1e30)]  # an optimizer in float32 can't hold much more


def sorted_layer_names(value: str | list[str]) -> str | list[str]:
    """Names of layers in order, given as a list or with commas between them; `all-linear` stays."""
    if value == "all-linear":
        return value
    names = value.split(",") if isinstance(value, str) else value
    cleaned = sorted({name.strip() for name in names} - {""})
    if not cleaned:
        raise ValueError("names at least one layer, or all-linear")
    return cleaned


def share_or_overlap(value: Any) -> Any:
    """A share of wrong labels, or the word that has it estimated; raises ValueError for anything else."""
    if value == FROM_OVERLAP:
        return value
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share < 0.5:
        raise ValueError(f"must be a share from 0 to below 0.5, or {FROM_OVERLAP}")
    return share


WrongShareOrOverlap = Annotated[float | Literal["overlap"], BeforeValidator(share_or_overlap)]
LayerNames = Annotated[str | list[str], AfterValidator(sorted_layer_names)]
TemplateDate = Annotated[str, AfterValidator(checked_date)]
TemplateArguments = Annotated[list[str], AfterValidator(checked_assignments)]
JudgeUrl = Annotated[str, AfterValidator(checked_base_url)]
ServerUrl = Annotated[str, AfterValidator(checked_server_url)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def setting(default: Any, help_text: str, *flags: str) -> Any:
    """A field with its help, and the names of its command-line flags where they differ from the field's name."""
    return Field(default=default, description=help_text, json_schema_extra={"flags": list(flags)} if flags else None)


class Section(BaseModel):
    """A group of settings; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, defer_build=True)


class ModelSettings(Section):
    """The language model to be aligned: θ₀ = π_ref = π_SFT."""

    name: str = setting("tiny", "alias (see `activedpo ls models`), hub id, local folder, or GGUF file", "--model")
    revision: str | None = setting(None, "hub revision; null takes the newest when the run is made", "--model-revision")
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "number format of the base weights; auto keeps the checkpoint's, and of a packed GGUF file makes bfloat16",
        "--dtype",
    )
    quantization: Literal["none", "8bit", "4bit"] = setting(
        "none",
        "hold the linear layers of the base in 8 bits, or in 4 (NF4, as in QLoRA), by bitsandbytes; the adapter stays in "
        "float32",
    )
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = setting("sdpa", "attention kernel")


class PromptSettings(Section):
    """The pool of prompts, fixed when the run is made."""

    source: str = setting("tiny", "file, hub dataset id, or named source (see `activedpo ls prompts`)", "--prompts")
    dataset_split: str = setting("train", "split to read of a hub dataset")
    column: str = setting("prompt", "column that holds the prompt", "--prompt-column")
    split_column: str | None = setting(
        None,
        "column of a prompts file that says train or eval in every row, so that several files can hold out the same "
        "prompts; null: held-out prompts are drawn from all",
    )
    eval_prompts: Annotated[int, Field(ge=0)] = setting(
        100, "prompts held out for evaluation, never in the pool; with 0 nothing can be evaluated", "--eval-prompts"
    )
    limit: PositiveInt | None = setting(None, "use only this many prompts, drawn with the run's seed")
    duplicates: Literal["drop", "error"] = setting("drop", "what happens to repeated prompts; dropping is reported")
    chat_template: Literal["auto", "never"] = setting(
        "auto", "auto: the tokenizer's chat template where it has one; never: plain text"
    )
    template_date: TemplateDate = setting(
        TEMPLATE_DATE,
        "the day that a chat template reads in place of the clock, so that prompts are the same on any day",
    )
    template_kwargs: TemplateArguments = setting(
        [], "further arguments of the model's chat template, as a list of name=value: [enable_thinking=false]"
    )


class SftSettings(Section):
    """Supervised fine-tuning before iteration 1, which makes π_SFT; fixed once anything is made with it."""

    data: str | None = setting(
        None,
        "file of examples: prompt and completion, prompt and chosen, messages, or text; null: the model is π_SFT already",
        "--data",
    )
    num_train_epochs: Positive = setting(1, "passes over the examples (paper: 1)", "--epochs", "--num-train-epochs")
    learning_rate: LearningRate = setting(2e-5, "peak learning rate (paper: 2e-5)")
    per_device_train_batch_size: PositiveInt = setting(8, "examples per step and device", "--batch-size")
    gradient_accumulation_steps: PositiveInt = setting(1, "steps summed before an update")
    lora_r: PositiveInt | None = setting(
        None, "LoRA rank, merged into the weights at the end; null trains all weights, in float32"
    )
    lora_alpha: Positive = setting(32, "LoRA alpha, where there is a rank")
    lora_dropout: Probability = setting(0.0, "LoRA dropout, where there is a rank")
    lora_modules: LayerNames = setting(
        "all-linear", "names of the layers that LoRA adapts, or all-linear, where there is a rank"
    )
    eval_share: Annotated[float, Field(ge=0, lt=1)] = setting(
        0.05, "share of the prompts (of the texts) kept out, on which the loss is measured before and after"
    )
    max_length: PositiveInt | None = setting(
        None, "longest example in tokens, prompt included; null takes the model's context"
    )
    too_long: Literal["drop", "truncate"] = setting(
        "drop", "leave examples that are too long out, or cut their end off; either is counted and reported"
    )
    append_eos: bool = setting(
        True, "end each example with the end-of-text token (of a chat template: of the turn), which teaches to stop"
    )
    lr_scheduler_type: str = setting("linear", "learning-rate schedule of transformers")
    warmup_steps: Annotated[int, Field(ge=0)] = setting(0, "steps of linear warm-up")
    weight_decay: NonNegative = setting(0.0, "AdamW weight decay")
    max_grad_norm: Positive = setting(1.0, "gradient clipping")
    bf16: bool = setting(False, "compute in bfloat16 where that is safe; trained weights stay float32")
    gradient_checkpointing: bool = setting(False, "trade time for memory")
    save_steps: PositiveInt = setting(500, "steps between checkpoints, from which an interrupted SFT goes on")


class AdapterSettings(Section):
    """The LoRA adapter that is trained and whose gradients are the features; fixed once it is made."""

    r: PositiveInt = setting(128, "LoRA rank (paper: 128)", "--lora-r")
    lora_alpha: Positive = setting(512, "LoRA alpha (paper: 512)", "--lora-alpha")
    use_rslora: bool = setting(False, "multiply updates by alpha / √r (rank-stabilized LoRA) in place of alpha / r")
    lora_dropout: Probability = setting(0.0, "LoRA dropout in training; never active in featurize", "--lora-dropout")
    target_modules: LayerNames = setting(
        ["q_proj", "k_proj", "v_proj", "o_proj"],
        "names of the adapted layers, or all-linear",
        "--lora-modules",
        "--lora-target-modules",
    )


class GenerateSettings(Section):
    """Sampling of responses to the prompts of one iteration."""

    num_prompts: PositiveInt | None = setting(
        1000, "prompts drawn for this iteration (paper: 1000); null takes all that can be used"
    )
    num_responses: Annotated[int, Field(ge=2)] = setting(3, "responses to each prompt (paper: 3)")
    max_new_tokens: PositiveInt = setting(128, "longest response, in tokens")
    temperature: Positive = setting(1.0, "sampling temperature")
    top_k: Annotated[int, Field(ge=0)] = setting(0, "sample among the k likeliest tokens; 0 switches it off")
    top_p: Annotated[float, Field(gt=0, le=1)] = setting(1.0, "nucleus sampling mass; 1 switches it off")
    stop_token_ids: list[int] = setting([], "further token ids that end a response, beside the model's own")
    truncated: Literal["keep", "drop"] = setting("keep", "whether responses cut off by the length limit form pairs")
    backend: str = setting(
        "transformers", "what samples: a module of activedpo_cli/generate/backends/, or an entry point"
    )
    server_url: ServerUrl | None = setting(
        None, "address of the server that samples, with backend server, such as http://127.0.0.1:8000/v1"
    )
    server_model: str | None = setting(
        None, "the name that the server has for the base model; null takes the only one that it serves"
    )
    server_api_key_env: VariableName | None = setting(
        None, "name of the environment variable that holds its key; null sends none, and no other variable is read"
    )
    server_timeout: Positive = setting(
        600.0,
        "seconds without a byte from the server, or vLLM, which sends none before a response is whole, until asked again",
    )
    vllm_python: str | None = setting(
        None, "the Python for which vLLM is installed, with backend vllm; null takes the one that runs this command"
    )
    vllm_args: str = setting("", "further arguments of vLLM's server, quoted as in a shell, such as --max-num-seqs=64")
    vllm_start_timeout: Positive = setting(1800.0, "seconds that vLLM may take until it answers for the first time")
    responses: str | None = setting(None, "take the responses from this file instead of sampling", "--responses")
    recorded_eos: bool = setting(
        False, "append the end-of-text token (of a chat template: of the turn) to responses from a file"
    )
    recorded_pairs: Literal["all", "given"] = setting(
        "all", "which responses from a file form pairs: all to one prompt, or those that one row holds as a pair"
    )
    unit_size: PositiveInt = setting(64, "prompts sampled as one batch; also the unit of resume")


Column = Literal["features", "logps", "ref_logps", "hidden", "mean_hidden", "scores"]
"""What *featurize* can compute of a response; `scores` asks the oracle about every candidate, for a ceiling."""


class FeaturizeSettings(Section):
    """Random projections of the per-response gradients."""

    proj_dim: PositiveInt = setting(8192, "dimension d of the projected gradients (paper: 8192)")
    projection: str = setting("factored", "kind of random projection: factored, count-sketch or dense")
    projection_width: PositiveInt = setting(
        1, "how many times d a matrix's compressed gradient may be, with factored; more costs time and lowers the error"
    )
    exact_norms: Literal["auto", "always"] = setting(
        "auto", "auto: the norm before projection where it comes free; always: also where it costs another product"
    )
    compute: list[Column] | None = setting(
        None,
        "what to compute: features, logps, ref_logps, hidden, mean_hidden, scores; null takes what the method needs",
    )
    tokens_per_batch: PositiveInt = setting(
        2048, "tokens of prompts and responses, padding included, per forward and backward pass", "--tokens-per-batch"
    )
    gradient_checkpointing: bool = setting(False, "trade time for memory", "--featurize-gradient-checkpointing")
    unit_size: PositiveInt = setting(64, "responses per file; also the unit of resume")

    @field_validator("projection")
    @classmethod
    def _hyphens(cls, value: str) -> str:
        return value.replace("_", "-")

    @field_validator("compute")
    @classmethod
    def _sorted_columns(cls, value: list[str] | None) -> list[str] | None:
        return None if value is None else sorted(set(value))


class SelectSettings(Section):
    """The choice of pairs."""

    method: str = setting("activedpo", "acquisition method (see `activedpo ls methods`)")
    budget: PositiveInt = setting(50, "labels to buy in this iteration (paper: 50)")
    normalise: Literal["response", "pair", "none"] = setting(
        "response",
        "bring to unit norm each response's features, each pair's difference, or nothing (what --features does)",
    )
    max_per_prompt: PositiveInt | None = setting(None, "most pairs of one prompt in one batch; null for no limit")
    history: Literal["refreshed", "frozen"] = setting(
        "refreshed",
        "what stands for pairs labelled earlier: their columns under the current policy (the paper's), or those "
        "by which they were chosen",
    )

    methods: dict[str, dict[str, Any]] = setting({}, "settings of single methods, such as `activedpo: {ridge: 0.1}`")

    @model_validator(mode="before")
    @classmethod
    def _with_sections_of_older_versions(cls, values: Any) -> Any:
        """Older versions had a method's section directly under `select`; raises ValueError for a setting given twice."""
        if not isinstance(values, dict):
            return values
        older = {name: own for name, own in values.items() if name not in cls.model_fields and isinstance(own, dict)}
        methods = values.get("methods", {})
        if not older or not isinstance(methods, dict):
            return values
        methods = dict(methods)
        for name, own in older.items():
            now = methods.get(name) or {}
            if isinstance(now, dict) and (twice := sorted(own.keys() & now.keys())):
                raise ValueError(f"`{name}.{twice[0]}` and `methods.{name}.{twice[0]}` are one setting, given twice")
            methods[name] = {**own, **now} if isinstance(now, dict) else now
        return {name: value for name, value in values.items() if name not in older} | {"methods": methods}

    @field_validator("methods")
    @classmethod
    def _of_known_methods(cls, methods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        sections = [method.replace("-", "_") for method in available("acquisition")] if methods else []
        for name in methods:
            if name not in sections:
                raise ValueError(f"`{name}` is no method" + did_you_mean(name, sections))
        return methods


def current_key(key: str) -> str:
    """The dotted key of a setting as it is spelled now.

    Older versions wrote `select.activedpo.ridge` for `select.methods.activedpo.ridge`: in `config.yaml`, in records and in
    experiments.
    """
    if not key.startswith("select."):
        return key
    rest = key.removeprefix("select.")
    name, dot, _ = rest.partition(".")
    is_older = dot and name not in SelectSettings.model_fields
    return f"select.methods.{rest}" if is_older else key


class JudgeSettings(Section):
    """A language model that answers, under the oracles `judge:MODEL` and `mixed:MODEL`."""

    base_url: JudgeUrl | None = setting(
        None, "address of a server that speaks OpenAI's protocol, such as http://127.0.0.1:8000/v1"
    )
    api_key_env: VariableName | None = setting(
        None, "name of the environment variable that holds its key; null sends none, and no other variable is read"
    )
    rubric: str | None = setting(
        None, "file that says what better means, instead of the words of the built-in template"
    )
    temperature: NonNegative | None = setting(0.0, "sampling temperature; null sends none, as reasoning models want it")
    max_tokens: PositiveInt = setting(1024, "longest reply in tokens, thinking included")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = setting(
        "max_tokens", "how the server calls that limit; OpenAI's reasoning models know max_completion_tokens alone"
    )
    structured: Literal["auto", "json_schema", "none"] = setting(
        "auto", "whether replies are asked for by a schema; auto: by a schema, and without where the server refuses it"
    )
    tries: PositiveInt = setting(3, "replies asked for per order of a pair until one can be read")
    threshold: Annotated[float, Field(ge=0, le=0.5)] = setting(
        0.5, "under mixed, people get the pairs with |P − ½| below this, and those without a verdict"
    )
    max_calls: PositiveInt | None = setting(
        None, "most calls for one stage, or for all checks of a run; null for no limit"
    )
    max_tokens_total: PositiveInt | None = setting(
        None, "most tokens, of prompts and replies, for one stage, or for all checks of a run; null for no limit"
    )
    price_input: NonNegative | None = setting(None, "price of a million tokens of prompts, for estimates alone")
    price_output: NonNegative | None = setting(None, "price of a million tokens of replies, for estimates alone")
    timeout: Positive = setting(120.0, "seconds without a byte from the server after which a call is given up")
    max_retries: Annotated[int, Field(ge=0)] = setting(
        4, "times that a call is made again which the server did not take"
    )
    concurrency: PositiveInt = setting(4, "calls at once")


JUDGE_KEYS_OF_WORK = tuple(
    f"label.judge.{name}" for name in ("base_url", "rubric", "temperature", "structured", "threshold")
)
"""Settings of a judge on which its verdicts depend; what stands in its rubric is an input beside them.

The longest reply is none of them: what it cuts off is no verdict.
"""
JUDGE_KEYS_BESIDE_WORK = tuple(
    key for key in (f"label.judge.{name}" for name in JudgeSettings.model_fields) if key not in JUDGE_KEYS_OF_WORK
)
"""Settings of a judge that decide what it costs, how long it takes, and what is not asked at all."""


class LabelSettings(Section):
    """Who answers, and how scores become answers."""

    oracle: str = setting(
        "human",
        "human, judge:MODEL, mixed:MODEL, recorded, reward-model:MODEL, or python:MODULE:FUNCTION "
        "(see `activedpo ls oracles`)",
    )
    score_field: str | None = setting(None, "the score that the recorded oracle reads")
    answer: Literal["argmax", "bradley-terry"] = setting(
        "argmax", "prefer the higher score, or sample from the Bradley–Terry probability"
    )
    temperature: Positive = setting(1.0, "divides the score difference under bradley-terry", "--label-temperature")
    noise: WrongShare = setting(
        0.0, "share of preferences turned around at random, to try what mistakes do; not for people", "--label-noise"
    )
    input_format: Literal["auto", "chat", "pair"] = setting(
        "auto", "what a reward model reads: its chat template, or prompt and response as a text pair"
    )
    max_length: PositiveInt | None = setting(None, "tokens a reward model reads at most; null takes its own limit")
    unit_size: PositiveInt = setting(16, "pairs scored as one batch; also the unit of resume")
    overlap: Annotated[int, Field(ge=0)] = setting(
        0,
        "selected pairs an iteration that a second person answers too, or whose random answer is drawn twice, to measure "
        "agreement",
        "--overlap",
    )
    control: Annotated[int, Field(ge=0)] = setting(
        0, "random unselected pairs an iteration that people are asked about too, to measure by", "--control"
    )
    repeat: Annotated[int, Field(ge=0)] = setting(
        0, "pairs an iteration that each person is asked for the second time, sides changed", "--repeat"
    )
    gold: str | None = setting(None, "file of pairs whose better response is known, mixed in unmarked", "--gold")
    gold_pairs: PositiveInt = setting(5, "how many of them an iteration")
    settle: Literal["first", "majority", "third"] = setting(
        "first",
        "which of several answers to a pair trains: the first person's, that of most, or that of most after a third is "
        "asked where two differ",
    )
    judge: JudgeSettings = setting(JudgeSettings(), "whom a judge's questions go to, how, and how many")


class TrainSettings(Section):
    """DPO (paper Eq. 2); names are TRL's."""

    labels: Literal["new", "all"] = setting("new", "train on this iteration's labels, or on all so far")
    start: Literal["previous", "reference"] = setting(
        "previous", "continue from θ of the last iteration, or from π_ref"
    )
    beta: Positive = setting(0.1, "DPO β")
    learning_rate: LearningRate = setting(1e-4, "peak learning rate (paper: 1e-4)")
    num_train_epochs: Positive = setting(4, "passes over the preferences (paper: 4)", "--epochs", "--num-train-epochs")
    per_device_train_batch_size: PositiveInt = setting(8, "preferences per step and device", "--train-batch-size")
    gradient_accumulation_steps: PositiveInt = setting(1, "steps summed before an update")
    lr_scheduler_type: str = setting("linear", "learning-rate schedule of transformers")
    warmup_steps: Annotated[int, Field(ge=0)] = setting(0, "steps of linear warm-up")
    weight_decay: NonNegative = setting(0.0, "AdamW weight decay")
    max_grad_norm: Positive = setting(1.0, "gradient clipping")
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust", "cdpo"] = setting(
        "sigmoid",
        "TRL's DPO loss; sigmoid is Eq. 2, robust takes the bias of wrong labels out, cdpo (conservative DPO) trains on "
        "smoothed labels",
    )
    label_smoothing: WrongShareOrOverlap = setting(
        0.0,
        "assumed share of wrong labels, read by loss_type robust and cdpo; overlap estimates it from the pairs that were "
        "answered twice so far",
    )
    gradient_checkpointing: bool = setting(False, "trade time for memory")
    include_ties: bool = setting(False, "train on ties, with a seeded coin for the winner")

    @property
    def wrong_share(self) -> float:
        """`label_smoothing` as a number; raises ValueError while that is still to be estimated."""
        if isinstance(self.label_smoothing, str):
            raise ValueError("train.label_smoothing names no number yet")
        return self.label_smoothing


class EvaluateSettings(Section):
    """Measurement on held-out prompts; how they are sampled is fixed for a run, so that iterations compare."""

    num_responses: PositiveInt = setting(3, "responses to each held-out prompt")
    max_new_tokens: PositiveInt | None = setting(None, "longest response; null takes generate's", "--max-new-tokens")
    temperature: Positive = setting(1.0, "sampling temperature; the KL is estimated only at 1, top_k 0, top_p 1")
    top_k: Annotated[int, Field(ge=0)] = setting(0, "sample among the k likeliest tokens; 0 switches it off")
    top_p: Annotated[float, Field(gt=0, le=1)] = setting(1.0, "nucleus sampling mass; 1 switches it off")
    scorer: str | None = setting(None, "who scores the responses; null takes the label oracle where it can score")
    second_scorer: str | None = setting(None, "an independent scorer, reported beside the first")
    score_field: str | None = setting(
        None, "recorded score by which held-out pairs are ordered, for the accuracy of the implicit reward"
    )
    preferences: str | None = setting(
        None, "file of held-out preferences (prompt, chosen, rejected) for the accuracy of the implicit reward"
    )
    unit_size: PositiveInt = setting(64, "prompts sampled as one batch; also the unit of resume")


class Config(Section):
    """The settings of a run, as they stand in `config.yaml`."""

    seed: int = setting(0, "seed of everything random in the run")
    model: ModelSettings = ModelSettings()
    prompts: PromptSettings = PromptSettings()
    sft: SftSettings = SftSettings()
    adapter: AdapterSettings = AdapterSettings()
    generate: GenerateSettings = GenerateSettings()
    featurize: FeaturizeSettings = FeaturizeSettings()
    select: SelectSettings = SelectSettings()
    label: LabelSettings = LabelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelSettings,
    "prompts": PromptSettings,
    "sft": SftSettings,
    "adapter": AdapterSettings,
    "generate": GenerateSettings,
    "featurize": FeaturizeSettings,
    "select": SelectSettings,
    "label": LabelSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
}


def section_of(section: type[BaseModel], field: str) -> type[BaseModel] | None:
    """The group of settings that a field of a section is, None for a setting."""
    kind = section.model_fields[field].annotation if field in section.model_fields else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def setting_keys() -> list[str]:
    """The dotted keys of all settings in sections, those of groups within them too."""
    found = []
    for name, section in SECTIONS.items():
        for field in section.model_fields:
            group = section_of(section, field)
            inner = [""] if group is None else group.model_fields
            found += [f"{name}.{field}.{leaf}".removesuffix(".") for leaf in inner]
    return found
