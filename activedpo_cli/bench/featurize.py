"""Measures gradient features against a plain forward and backward pass: time, memory, error of the projection."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

import torch
from peft import PeftModel

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.bench.measuring import median_ratio, peak_memory, seconds_in_turns
from activedpo_cli.bench.one_at_a_time import AT_A_TIME, OneAtATime, time_one_at_a_time
from activedpo_cli.bench.workload import Workload, plain_flops
from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.checkpointing import checkpointed_layers
from activedpo_cli.gradients.lora_matrices import active_lora_matrices
from activedpo_cli.gradients.per_response import plain_pass, response_gradients
from activedpo_cli.gradients.projections import make_projection
from activedpo_cli.gradients.projections.base import Projection
from activedpo_cli.gradients.quality import ProjectionQuality, advice, cosine_errors

PAIRS_WANTED = 256
"""Pairs of responses on which the projection's error is measured; once there are so many, no further batch is read."""


@dataclass(frozen=True, kw_only=True)
class FeaturizePlan:
    """How responses are featurized, and what is measured; raises UsageError for an unknown projection."""

    workload: Workload
    projection: str
    proj_dim: int
    projection_width: int
    repeats: int
    seed: int
    gradient_checkpointing: bool = False
    one_at_a_time: bool = True

    def __post_init__(self) -> None:
        self.make_projection()  # an unknown name is refused before a model is loaded

    def make_projection(self) -> Projection:
        """The projection, with nothing drawn yet."""
        seed = derive_seed(self.seed, "bench", "projection")
        return make_projection(self.projection, self.proj_dim, seed, self.projection_width)


@dataclass(frozen=True, kw_only=True)
class FeaturizeCost:
    """The measurement; seconds are of one pass over all responses, in the order of the repetitions.

    Peaks are bytes of tensors above the model, in the first pass over the first batch, the projection's draws included.
    `advice` names the flags that bring the projection's error down.
    `quality` is None where no two responses share a batch, `one_at_a_time` where it was not asked for.
    """

    plain_seconds: list[float]
    features_seconds: list[float]
    peak_memory_bytes_plain: int
    peak_memory_bytes: int
    quality: ProjectionQuality | None
    advice: str
    one_at_a_time: OneAtATime | None
    plain_flops: int
    responses: int
    tokens: int
    parameters: int
    lora_parameters: int
    dtype: str
    device: str

    @property
    def ratio_to_plain(self) -> float:
        """How many times as long features take as the plain pass: the median over repetitions."""
        return median_ratio(self.features_seconds, self.plain_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of prompts and responses, with features."""
        return self.tokens / median(self.features_seconds)

    @property
    def ratio_to_one_at_a_time(self) -> float | None:
        """How many times as long one response at a time takes."""
        if self.one_at_a_time is None:
            return None
        return self.one_at_a_time.seconds_for(self.responses) / median(self.features_seconds)


def measure_featurize(policy: PeftModel, plan: FeaturizePlan, progress: Progress) -> FeaturizeCost:
    """Measure on a policy's own device; raises ActiveDPOError where memory runs out, with the flag that helps."""
    with checkpointed_layers(policy, enabled=plan.gradient_checkpointing):
        batches = plan.workload.batches(len(_embeddings(policy)), policy.device)
        progress.start("measure", 2 * (plan.repeats + 1) + 3 + plan.one_at_a_time, "passes")
        try:
            return _measure(policy, plan, batches, progress)
        finally:
            progress.stop()


def _measure(
    policy: PeftModel, plan: FeaturizePlan, batches: Sequence[ResponseBatch], progress: Progress
) -> FeaturizeCost:
    device, projection = policy.device, plan.make_projection()
    with _explained_shortage(f"--tokens-per-batch {max(1, plan.workload.tokens_per_batch // 2)}"):
        timed = seconds_in_turns(
            {
                "plain": lambda: _for_each(batches, lambda batch: plain_pass(policy, batch)),
                "features": lambda: _for_each(batches, lambda batch: response_gradients(policy, batch, projection)),
            },
            plan.repeats,
            device,
            progress.advance,
        )
        peak_plain = peak_memory(lambda: plain_pass(policy, batches[0]), device)
        progress.advance()
        fresh = plan.make_projection()
        peak = peak_memory(lambda: response_gradients(policy, batches[0], fresh), device)
        progress.advance()
        quality = _quality(policy, batches, projection)
        progress.advance()
    with _explained_shortage("--no-one-at-a-time"):
        one_at_a_time = _one_at_a_time(policy, plan) if plan.one_at_a_time else None
        progress.advance(int(plan.one_at_a_time))
    lora_parameters = sum(matrix.shape.size for matrix in active_lora_matrices(policy))
    return FeaturizeCost(
        plain_seconds=timed["plain"],
        features_seconds=timed["features"],
        peak_memory_bytes_plain=peak_plain,
        peak_memory_bytes=peak,
        quality=quality,
        advice=advice(policy, projection),
        one_at_a_time=one_at_a_time,
        plain_flops=plain_flops(policy, plan.workload),
        responses=plan.workload.responses,
        tokens=plan.workload.tokens,
        parameters=sum(parameter.numel() for parameter in policy.parameters()) - lora_parameters,
        lora_parameters=lora_parameters,
        dtype=str(_embeddings(policy).dtype).removeprefix("torch."),
        device=_name_of(device),
    )


def _for_each(batches: Sequence[ResponseBatch], work: Callable[[ResponseBatch], object]) -> None:
    for batch in batches:
        work(batch)


def _quality(policy: PeftModel, batches: Sequence[ResponseBatch], projection: Projection) -> ProjectionQuality | None:
    errors: list[torch.Tensor] = []
    for batch in batches:
        errors.append(cosine_errors(policy, batch, projection))
        if sum(map(len, errors)) >= PAIRS_WANTED:
            break
    return ProjectionQuality.of(torch.cat(errors), projection.proj_dim)


def _one_at_a_time(policy: PeftModel, plan: FeaturizePlan) -> OneAtATime:
    workload = replace(plan.workload, responses=min(AT_A_TIME, plan.workload.responses), tokens_per_batch=1)
    singles = workload.batches(len(_embeddings(policy)), policy.device)
    return time_one_at_a_time(policy, singles, plan.proj_dim, derive_seed(plan.seed, "bench", "one-at-a-time"))


@contextmanager
def _explained_shortage(hint: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ActiveDPOError(
            "memory ran out", details=[str(error).partition("\n")[0] or type(error).__name__], hint=hint
        ) from error


def _embeddings(policy: PeftModel) -> torch.Tensor:
    weight: torch.Tensor = policy.get_input_embeddings().weight
    return weight


def _name_of(device: torch.device) -> str:
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
