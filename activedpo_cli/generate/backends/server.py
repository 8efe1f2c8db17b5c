"""Sample with a model server beside, such as vLLM, that speaks OpenAI's protocol for completions

The server is sent tokens and gives tokens. Before it samples for a stage, and again by what it has sampled, its
log-probabilities are compared with those of the policy in memory: adapters have silently not been applied again and again.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from activedpo_cli.base.digests import sha256_of
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.settings import GenerateSettings
from activedpo_cli.generate.backends._completions import (
    KEPT,
    CompletionsServer,
    RefusedCallError,
    ServedModel,
    ServerError,
    address_of,
    base_model,
)
from activedpo_cli.generate.backends._probe import (
    Comparison,
    judged,
    limits_of,
    own_base_logps,
    own_logps,
    probe_texts,
    rounding_of,
)
from activedpo_cli.generate.backends._server_reading import read_logps
from activedpo_cli.generate.backends._server_sampling import ServerSampler
from activedpo_cli.generate.backends.base import Policy
from activedpo_cli.models.served_ranks import served_limit

OWN = "activedpo-"
"""How the names of adapters begin that this program has had loaded; their digest follows."""
WITH_ADAPTERS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and `--enable-lora --max-lora-rank"


def check(settings: GenerateSettings, *, tell: Callable[[str], None]) -> None:
    """Raise UsageError or ServerError where no server is named, it does not answer, or does not serve the model named."""
    server = CompletionsServer(address_of(settings), tell=tell, ending=threading.Event())
    base_model(server, server.models(), settings.server_model, OWN)


def open_sampler(
    policy: Policy,
    settings: GenerateSettings,
    *,
    tell: Callable[[str], None],
    note: Callable[[str], None] = lambda message: None,
) -> ServerSampler:
    """A sampler of the server that the settings name; raises as `proved` does, UsageError where they name none."""
    ending = threading.Event()
    server = CompletionsServer(address_of(settings), tell=tell, ending=ending)
    return proved(server, policy, settings.server_model, ending=ending, tell=tell)


def proved(
    server: CompletionsServer,
    policy: Policy,
    server_model: str | None,
    *,
    ending: threading.Event,
    tell: Callable[[str], None],
) -> ServerSampler:
    """Have the adapter loaded, under a name that is its digest, and make sure that it is applied.

    Raises InvalidDataError where the server's base is another model, ServerError where the adapter is not loaded, not
    applied, or the server can't tell.

    Args:
        server: Who is asked.
        policy: Who is to answer.
        server_model: What the server calls the base; None takes the only one there.
        ending: Is set when nothing is to be waited for any more.
        tell: Hears what somebody who waits should know.

    """
    models = server.models()
    base = base_model(server, models, server_model, OWN)
    texts = probe_texts(policy.model, policy.tokenizer)
    firsts, rests = [ids[:1] for ids in texts], [ids[1:] for ids in texts]
    own = own_logps(policy.model, firsts, rests)
    own_base = own if policy.adapter is None else own_base_logps(policy.model, firsts, rests)
    served_base = read_logps(server, base.name, texts)
    limits = limits_of(policy.model)
    rounding = rounding_of(served_base, own_base, limits)
    found = Comparison(served_base, own_base, own_base, rounding=rounding)
    if judged(found, limits.tolerance) != "fits":
        raise _other_base(server, base, policy, found, limits.tolerance)
    name = base.name
    if policy.adapter is not None:
        name = _loaded(server, models, policy.adapter)
        found = Comparison(read_logps(server, name, texts), own, own_base, served_base, rounding)
        _require_applied(server, name, policy, found, limits.tolerance, tell)
    return ServerSampler(server, policy, base, name, found, ending)


def adapter_name(folder: Path) -> str:
    """A name that no other adapter has: the digest of its weights and of its configuration."""
    digests = [sha256_of(folder / name) for name in ("adapter_config.json", "adapter_model.safetensors")]
    return OWN + hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _loaded(server: CompletionsServer, models: Sequence[ServedModel], folder: Path) -> str:
    """The name under which the server has the adapter; it is loaded unless it is there, and never in another's place."""
    name = adapter_name(folder)
    if any(model.name == name for model in models):
        return name
    try:
        server.load_adapter(name, str(folder))
    except RefusedCallError as refused:
        if not any(model.name == name for model in server.models()):  # else another process was first
            raise _not_loaded(server, folder, refused) from None
    return name


def _not_loaded(server: CompletionsServer, folder: Path, refused: RefusedCallError) -> ServerError:
    said = refused.message.lower()
    rank = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    enough = served_limit(rank) or rank
    hint = (
        "the server has to see the folder under the same path, and to be started with "
        f"`--enable-lora --max-lora-rank {enough}`"
    )
    if "rank" in said:
        hint = (
            f"the adapter has rank {rank}: start the server with `--max-lora-rank {enough}`, then give the same command"
        )
    elif said in ("not found", "method not allowed") or "enable" in said:
        hint = (
            f"start vLLM with {WITH_ADAPTERS} {enough}`; another server has to load adapters by /v1/load_lora_adapter"
        )
    return ServerError(
        f"{server.called} has not loaded the adapter",
        details=[f"HTTP {refused.status}: {refused.message}", f"the adapter is in `{folder}`", KEPT],
        hint=hint,
    )


def _other_base(
    server: CompletionsServer, base: ServedModel, policy: Policy, found: Comparison, tolerance: float
) -> InvalidDataError:
    number_format = str(policy.model.dtype).removeprefix("torch.")
    return InvalidDataError(
        f"`{server.harmless(base.name)}` of {server.called} is another model than this run's base, or computes otherwise",
        details=[_distance(found, tolerance), KEPT],
        hint=f"let it serve `{policy.reference}` with `--dtype {number_format}`, not quantised; which of several models is "
        "meant says --server-model",
    )


def _require_applied(
    server: CompletionsServer,
    name: str,
    policy: Policy,
    found: Comparison,
    tolerance: float,
    tell: Callable[[str], None],
) -> None:
    """Raise ServerError unless the server answers as the policy does, and say where that can't be told from its base."""
    finding = judged(found, tolerance)
    if finding == "fits":
        return
    if finding == "can't be told":
        tell(
            f"the adapter changes the log-probability of a token by {found.effect:.2g} nats, which is too little to see "
            f"beside rounding, about {found.rounding:.2g}: whether the server applies it can't be told"
        )
        return
    share = found.share()
    seen = (
        f"{100 * share.value:.0f} % of the adapter's effect is seen"
        if share
        else "in memory its effect is too small to be seen"
    )
    what = {
        "not applied": f"has loaded the adapter `{name}` and does not apply it: it answers as the base does",
        "in part": f"applies the adapter `{name}` in part or with another scale: {seen}",
        "differs": f"answers neither as the adapter `{name}` nor as the base; {seen}",
    }[finding]
    raise ServerError(
        f"{server.called} {what}",
        details=[
            _distance(found, tolerance),
            f"from the base it differs by {found.from_base:.3g}, and the policy in memory by {found.effect:.3g}",
            f"the adapter is in `{policy.adapter}`",
            KEPT,
        ],
        hint="its log says which layers it adapts; see whether another version of it applies adapters to this architecture, "
        "or sample with `--backend transformers`",
    )


def _distance(found: Comparison, tolerance: float) -> str:
    return (
        f"its log-probabilities of {len(found.served)} tokens differ from those in memory by {found.mean:.3g} nats in the "
        f"mean and {found.worst:.3g} at most; in the mean {tolerance:g} are allowed"
    )
