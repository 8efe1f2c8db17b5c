"""Sample with vLLM, started for each stage that samples and ended with it; it may be installed for another Python

All else is as with a server: tokens in and out, and a proof by log-probabilities that the policy is what samples.
"""

import json
import math
import os
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.settings import GenerateSettings
from activedpo_cli.generate.backends._completions import CompletionsServer, ServerError
from activedpo_cli.generate.backends._engine import Engine, Interpreter, find_interpreter, running_engine
from activedpo_cli.generate.backends._server_sampling import ServerSampler
from activedpo_cli.generate.backends.base import Policy, SampledResponse, SamplingSettings
from activedpo_cli.generate.backends.server import proved
from activedpo_cli.models.served_ranks import LIMITS, served_limit

Answer = TypeVar("Answer")
LARGEST_RANK = LIMITS[-1]
"""Of an adapter that it serves."""
OURS = frozenset(
    {
        *("--model", "--revision", "--tokenizer", "--served-model-name", "--host", "--port", "--uds", "--api-key"),
        *("--dtype", "--quantization", "-q", "--generation-config", "--enable-lora", "--max-lora-rank"),
    }
)
"""Arguments that say what samples and where, and are not for others to give."""
IN_PARALLEL = ("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp")
OWN_PASSES = 0.1
"""The share of a GPU's memory that is left to this process, which computes log-probabilities there."""
LEAST_SHARE = 0.05
WITHOUT_IT = "`--backend transformers` samples without vLLM; what else vLLM is told stands in generate.vllm_args"
GRACE_SECONDS = 2.0
"""Between a call that fails and the word that the engine has ended."""


def check(settings: GenerateSettings, *, tell: Callable[[str], None]) -> None:
    """Raise UsageError or ActiveDPOError where there is no vLLM that could be started, or it is told what can't be."""
    find_interpreter(settings.vllm_python)
    _further(settings)


def open_sampler(
    policy: Policy,
    settings: GenerateSettings,
    *,
    tell: Callable[[str], None],
    note: Callable[[str], None] = lambda message: None,
) -> "EngineSampler":
    """Start vLLM with π_ref, and find out whether it answers as the policy does; raises as `server.proved` does.

    Raises EngineError where it does not come up.
    """
    interpreter, further, ending = find_interpreter(settings.vllm_python), _further(settings), threading.Event()
    engine = running_engine(
        interpreter,
        _arguments(policy, interpreter, further),
        _variables(policy.model.device, further, os.environ),
        timeout=settings.server_timeout,
        seconds=settings.vllm_start_timeout,
        note=note,
    )
    try:
        engine.sets_at_its_end(ending)
        server = CompletionsServer(engine.address, tell=tell, ending=ending)
        inner = _told_of_engine(
            engine, lambda: proved(server, policy, engine.name, ending=ending, tell=tell), WITHOUT_IT
        )
        return EngineSampler(engine, inner, interpreter.version)
    except BaseException:
        engine.close()
        raise


class EngineSampler:
    """An engine of this process that has been found to answer as the policy does."""

    def __init__(self, engine: Engine, inner: ServerSampler, version: str) -> None:
        self._engine, self._inner, self._version = engine, inner, version

    def facts(self) -> dict[str, Any]:
        """As of a server, with the version in place of the name that it had."""
        facts = {key: value for key, value in self._inner.facts().items() if key != "server_model"}
        return {"version": self._version or None} | facts

    def sample_unit(
        self, prompts_token_ids: Sequence[Sequence[int]], *, sampling: SamplingSettings, seed: int
    ) -> list[list[SampledResponse]]:
        """As of a server; raises EngineError where the engine has ended."""
        return _told_of_engine(
            self._engine, lambda: self._inner.sample_unit(prompts_token_ids, sampling=sampling, seed=seed)
        )

    def close(self) -> None:
        """End the engine."""
        self._engine.close()


def _told_of_engine(engine: Engine, ask: Callable[[], Answer], hint: str | None = None) -> Answer:
    """What it answers; raises EngineError where a call fails because the engine has ended, and takes another hint else."""
    try:
        return ask()
    except (ServerError, InvalidDataError) as error:
        if engine.ended.wait(GRACE_SECONDS):
            raise engine.failure("has ended while it was asked") from None
        raise type(error)(error.message, details=error.details, hint=hint or error.hint) from None


def _arguments(policy: Policy, interpreter: Interpreter, further: Sequence[str]) -> list[str]:
    """What vLLM is told of the policy, and of the machine, and at last what somebody else tells it."""
    folder = Path(policy.reference)
    arguments = ["--model", str(folder.absolute()) if folder.is_dir() else policy.reference]
    if policy.revision is not None:
        arguments += ["--revision", policy.revision, "--tokenizer-revision", policy.revision]
    arguments += ["--dtype", str(policy.model.dtype).removeprefix("torch."), "--generation-config", "vllm"]
    rank = policy.rank if policy.adapter is None else _rank_of(policy.adapter)
    if (
        rank is not None
    ):  # before any adapter is trained too: a model for which vLLM takes none is better known at first
        arguments += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(_limit_for(rank))]
    if interpreter.on_cpu:
        # A seeded request whose prompt is read in parts ends vLLM 0.32 on CPUs: "CPU Generator does not use offset".
        arguments += ["--enforce-eager", "--no-enable-chunked-prefill"]
    else:
        arguments += ["--max-model-len", "auto"]
        share = _free_share(policy.model.device)
        arguments += [] if share is None else ["--gpu-memory-utilization", f"{share:.2f}"]
    return [*arguments, *further]


def _rank_of(adapter: Path) -> int:
    return int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])


def _limit_for(rank: int) -> int:
    """The limit that vLLM is to have; raises UsageError for a rank beyond all, in a run that began with another backend."""
    limit = served_limit(rank)
    if limit is None:
        raise UsageError(
            f"the adapter has rank {rank}, and vLLM serves {LARGEST_RANK} at most", hint="`--backend transformers`"
        )
    return limit


def _free_share(device: Any) -> float | None:
    """How much of a GPU vLLM may take beside the model of this process, None where that is on no GPU."""
    if device.type != "cuda":
        return None
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return max(LEAST_SHARE, math.floor(100 * (free / total - OWN_PASSES)) / 100)


def _variables(device: Any, further: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Which GPU is vLLM's: that of this process, which is one of several at the same work, unless it is to use many."""
    if device.type != "cuda" or not device.index or any(word.partition("=")[0] in IN_PARALLEL for word in further):
        return {}
    visible = [name for name in given.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": visible[device.index] if device.index < len(visible) else str(device.index)}


def _further(settings: GenerateSettings) -> list[str]:
    """What somebody tells vLLM beside; raises UsageError for what is no words, or what follows from the run."""
    try:
        words = shlex.split(settings.vllm_args)
    except ValueError as error:
        raise UsageError(f"generate.vllm_args: {error}", hint="quote it as in a shell") from None
    ours = [word for word in words if word.partition("=")[0] in OURS]
    if ours:
        raise UsageError(
            f"generate.vllm_args says {', '.join(ours)}, which follows from the run",
            hint="leave it out; a server that you start yourself is asked with `--backend server`",
        )
    return words
