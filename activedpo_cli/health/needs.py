"""What each stage of an iteration will need in memory and in time, by a model's configuration and the settings alone.

Memory is weights, adapter, optimizer, and the worst moment of a pass, which is found by imagining it (`bench.imagined`).
Time is operations and bytes by what this device does, measured in a moment on matrices of no model; it is rougher by far.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.settings import Config, EvaluateSettings, GenerateSettings
from activedpo_cli.health.doctor import memory_of_machine

if TYPE_CHECKING:
    import torch

    from activedpo_cli.bench.imagined import ImaginedModel

LIBRARIES = {"generate": 0.5e9, "featurize": 0.5e9, "train": 0.75e9, "evaluate": 0.5e9}
"""Bytes of a process with the libraries that a stage loads; *train* loads TRL and datasets too."""
CUDA_CONTEXT = 0.6e9
"""What CUDA keeps of a GPU for itself."""
BITS = {"4bit": 4.127, "8bit": 8.01}
"""A weight with its share of the scales: of 64 weights one in 8 bits, and of 256 of these one in 32; or one a row."""
OPTIMIZER = 3 * 4
"""Bytes for each weight of the adapter in training: its gradient and the two moments of AdamW."""
USED_OF_PEAK = 0.5
"""The share of a device's products that passes of a model reach."""
STEP_SECONDS_OF_A_LAYER = {"cpu": 3e-4, "cuda": 1e-3}
"""What a layer with an adapter takes for a token at least, however small it is."""
HELD_BY_ALLOCATOR = {"cpu": 1.6, "cuda": 1.1}
"""How much more than the tensors of a pass an allocator holds, since what was freed is not given back."""
PRODUCTS = {"cpu": (96, 192, 256, 384, 512, 768), "cuda": (4096,)}
"""Rows and columns of the matrices whose product measures a device: of the first that takes long enough, else the last."""
LONG_ENOUGH = 0.01
"""Seconds of a product that tell what a device does while others are at work too; a large one in bfloat16 takes seconds on
a processor without instructions for it."""
COPIED = {"cpu": 2**24, "cuda": 2**28}
"""Numbers of the copy."""
FLOAT = 4
UNIMAGINED = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)
"""What libraries raise where an architecture asks for the values of tensors that have none."""


@dataclass(frozen=True)
class Speed:
    """What a device does: operations of products in a model's number format, and bytes read or written, a second."""

    operations: float
    bytes: float


@dataclass(frozen=True)
class Need:
    """Of a stage: bytes at its worst moment, seconds of one iteration, and how much work that is, in words."""

    stage: str
    bytes: int
    seconds: float
    work: str


@dataclass(frozen=True)
class Estimate:
    """Bytes of the base's weights, and what each stage needs."""

    weights: int
    stages: list[Need]


class Needs:
    """What an iteration needs with a model of which there is a configuration alone, for prompts of so many tokens."""

    def __init__(self, model: "ImaginedModel", config: Config, kind: str, speed: Speed, prompt: int) -> None:
        self.model, self.config, self.kind, self.speed, self.prompt = model, config, kind, speed, prompt
        self.linear = sum(model.linear_layers())
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self.head: int = self.vocabulary * model.config.get_text_config().hidden_size

    @property
    def weights(self) -> int:
        """Bytes of the base."""
        bits = BITS.get(self.config.model.quantization)
        whole = self.model.weights() * self.model.dtype.itemsize
        return whole if bits is None else round(whole - self.linear * (self.model.dtype.itemsize - bits / 8))

    def each(self) -> Iterator[Need]:
        """The stages that load the model, in their order."""
        config, generate = self.config, self.config.generate
        responses = (generate.num_prompts or 1000) * generate.num_responses
        held_out = config.prompts.eval_prompts * config.evaluate.num_responses
        longest = config.evaluate.max_new_tokens or generate.max_new_tokens
        yield Need(
            "generate",
            self._resident("generate") + self._sampling(generate, generate.max_new_tokens),
            self._sampling_seconds(generate, responses, generate.max_new_tokens),
            f"{responses:,} responses",
        )
        yield Need(
            "featurize",
            self._resident("featurize") + self._features(),
            self._pass_seconds(4, responses),
            f"{responses:,} responses",
        )
        seen = config.select.budget * 2 * config.train.num_train_epochs
        yield Need(
            "train",
            self._resident("train") + self._training(),
            self._pass_seconds(4, seen) + self._pass_seconds(2, 2 * config.select.budget),
            f"{config.select.budget:,} pairs, {config.train.num_train_epochs:g} times",
        )
        yield Need(
            "evaluate",
            self._resident("evaluate") + self._sampling(config.evaluate, longest),
            self._sampling_seconds(config.evaluate, held_out, longest) + 2 * self._pass_seconds(2, held_out),
            f"{held_out:,} responses, without what the scorer takes",
        )

    def _resident(self, stage: str) -> int:
        """What a stage holds throughout: libraries, the base, the adapter, and the values of a quantised layer in use."""
        is_whole = self.config.model.quantization == "none"
        values = 0 if is_whole else (FLOAT + self.model.dtype.itemsize) * max(self.model.linear_layers(), default=0)
        around = CUDA_CONTEXT if self.kind == "cuda" else LIBRARIES[stage]
        return round(around + self.weights + self.model.adapter_weights() * FLOAT + values)

    def _sampling(self, settings: GenerateSettings | EvaluateSettings, longest: int) -> int:
        from activedpo_cli.bench.imagined import Tokens

        rows = settings.unit_size * settings.num_responses
        return self._held(self.model.sampling(Tokens(rows, self.prompt, longest)))

    def _held(self, size: int) -> int:
        return round(size * HELD_BY_ALLOCATOR[self.kind])

    def _features(self) -> int:
        featurize = self.config.featurize
        rows = max(1, featurize.tokens_per_batch // self._row.length)
        found = self.model.features(
            self._rows(rows), featurize.proj_dim, featurize.projection, checkpointing=featurize.gradient_checkpointing
        )
        return self._held(found) + (3 * featurize.unit_size * featurize.proj_dim * FLOAT if self.kind == "cpu" else 0)

    def _training(self) -> int:
        train = self.config.train
        rows = 2 * train.per_device_train_batch_size
        found = self.model.training(self._rows(rows), checkpointing=train.gradient_checkpointing)
        return self._held(found) + self.model.adapter_weights() * OPTIMIZER

    @property
    def _row(self) -> Any:
        return self._rows(1)

    def _rows(self, rows: int) -> Any:
        from activedpo_cli.bench.imagined import Tokens

        return Tokens(rows, self.prompt, self.config.generate.max_new_tokens)

    def _pass_seconds(self, operations: int, rows: float) -> float:
        """Seconds of passes over so many rows with so many operations for each weight and token."""
        done = operations * (self.linear * self._row.length + self.head * self._row.response) * rows
        return done / (self.speed.operations * USED_OF_PEAK)

    def _sampling_seconds(self, settings: GenerateSettings | EvaluateSettings, responses: int, longest: int) -> float:
        """Reading the prompts, then a step for each token of the longest response of every unit."""
        rows = settings.unit_size * settings.num_responses
        units, text = math.ceil(responses / rows), self.model.config.get_text_config()
        layers = text.num_hidden_layers
        step = max(
            self.weights / self.speed.bytes,
            2 * (self.linear + self.head) * min(rows, responses) / (self.speed.operations * USED_OF_PEAK),
            layers * STEP_SECONDS_OF_A_LAYER[self.kind],
        )
        read = 2 * self.linear * responses * self.prompt / (self.speed.operations * USED_OF_PEAK)
        return read + units * longest * step


def estimate(config: Config, where: tuple[str, str | None], device: "torch.device", prompt: int) -> Estimate:
    """What stages with the model at a place will need on a device, for prompts of so many tokens, if there is room for them.

    Raises ActiveDPOError where the configuration does not say it, as of an architecture that can't be imagined.
    """
    from activedpo_cli.bench.imagined import Adapter, ImaginedModel
    from activedpo_cli.models.loading import DTYPES, configuration_at, context_length

    described = configuration_at(*where)
    dtype = DTYPES.get(config.model.dtype) or _stored_dtype(where[0], described)
    room = context_length(described)
    longest = prompt if room is None else max(1, min(prompt, room - config.generate.max_new_tokens))
    kind = "cuda" if device.type == "cuda" else "cpu"
    adapter = Adapter(config.adapter.r, config.adapter.target_modules)
    try:
        model = ImaginedModel(described, dtype, adapter, config.model.attn_implementation)
        found = Needs(model, config, kind, measured_speed(device, dtype), longest)
        return Estimate(found.weights, list(found.each()))
    except UNIMAGINED as error:
        raise ActiveDPOError(f"passes of this architecture can't be imagined: {error}".splitlines()[0]) from error


def _stored_dtype(folder: str, described: Any) -> "torch.dtype":
    """The number format that the configuration names, else that of the first matrix of the weights."""
    import torch

    named = getattr(described, "dtype", None)
    if isinstance(named, torch.dtype):
        return named
    formats = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
    for path in sorted(Path(folder).glob("*.safetensors")):
        with open(path, "rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
        stored = [entry["dtype"] for entry in header.values() if len(entry.get("shape", ())) > 1]
        return formats.get(stored[0], torch.float32) if stored else torch.float32
    return torch.float32


def free_memory(device: "torch.device", *, everywhere: bool = False) -> int | None:
    """Bytes that are free on a device, or on all GPUs together; None where the system does not say."""
    import torch

    if device.type == "cuda":
        devices = range(torch.cuda.device_count()) if everywhere else [device]
        return sum(torch.cuda.mem_get_info(one)[0] for one in devices)
    known = memory_of_machine() if device.type == "cpu" else None
    return None if known is None else known[0]


def measured_speed(device: "torch.device", dtype: "torch.dtype") -> Speed:
    """By a product of two matrices, as large as can be measured in a moment, and by a copy, each the median of four."""
    import torch

    from activedpo_cli.bench.measuring import seconds

    kind = "cuda" if device.type == "cuda" else "cpu"
    for size in PRODUCTS[kind]:
        a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
        if min(seconds(lambda: a @ b, device) for _ in range(2)) >= LONG_ENOUGH:  # noqa: B023 - called here and now
            break
    copied = torch.zeros(COPIED[kind], device=device)
    product = median(seconds(lambda: a @ b, device) for _ in range(4))
    copy = median(seconds(copied.clone, device) for _ in range(4))
    return Speed(2 * size**3 / product, 2 * FLOAT * COPIED[kind] / copy)
