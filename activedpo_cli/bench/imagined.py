"""What a pass of a model takes in memory, found out without its weights: the pass is made on torch's device without memory.

Tensors there have shapes and no values. Every storage that the pass would make is followed until it is freed, so whatever an
architecture does is counted, and one operation's own scratch space is not. Few layers are tried and the rest is added.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from activedpo_cli.bench.measuring import LiveStorages
from activedpo_cli.gradients.batch import ResponseBatch
from activedpo_cli.gradients.checkpointing import checkpointed_layers
from activedpo_cli.gradients.lora_matrices import LoraMatrix, active_lora_matrices
from activedpo_cli.gradients.model_state import embeddings_as_leaf, evaluation_mode, frozen_parameters
from activedpo_cli.gradients.per_response import FeatureSink, factor_dtype
from activedpo_cli.gradients.projections import make_projection
from activedpo_cli.gradients.response_head import ResponseHead, last_hidden_states, without_wrapper
from activedpo_cli.gradients.taps import tapped
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_models import random_policy
from activedpo_cli.models.random_state import seeded_library_state

META = torch.device("meta")
FEW, MORE = 2, 4
"""Layers of the two models by which the cost of a layer is known."""
TILE = 32_768
"""Entries of the vocabulary for which TRL holds the logits of all tokens at once, however small the vocabulary is."""
MOST_OPERATIONS = 5_000
"""Of reading prompts; a transformer has some hundred for a layer, and one that goes from token to token takes minutes."""
ALIKE = "layer_types"
"""What in a configuration has an entry for each layer."""


@dataclass(frozen=True)
class Adapter:
    """LoRA as it is put on."""

    r: int
    target_modules: str | list[str]


@dataclass(frozen=True)
class Tokens:
    """So many rows of a prompt and a response."""

    rows: int
    prompt: int
    response: int

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.response


class ImaginedModel:
    """A model of which there is a configuration alone; attention is `eager`, or fused whatever the kernel is called."""

    def __init__(
        self, config: PretrainedConfig, dtype: torch.dtype, adapter: Adapter, attn_implementation: str = "sdpa"
    ) -> None:
        self.config, self.dtype, self.adapter = config, dtype, adapter
        self.attention = "eager" if attn_implementation == "eager" else "sdpa"
        self.whole = _without_memory(config, dtype, self.attention)
        self.layers = int(config.get_text_config().num_hidden_layers)
        self._policies: dict[int, PeftModel] = {}

    def linear_layers(self) -> list[int]:
        """How many numbers each linear layer has, the output one left out."""
        head = self.whole.get_output_embeddings()
        weights = {m.weight for m in self.whole.modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head}
        return [weight.numel() for weight in weights]

    def weights(self) -> int:
        """Numbers in all parameters; one that is used twice counts once."""
        return sum(weight.numel() for weight in self.whole.parameters())

    def adapter_weights(self) -> int:
        """Numbers in all A and B."""
        return self._by_layers(lambda policy: sum(m.shape.size for m in _matrices(policy)))

    def features(self, tokens: Tokens, proj_dim: int, projection: str, *, checkpointing: bool) -> int:
        """Bytes above model and adapter at the worst moment of a pass that featurizes these rows at once."""
        return self._by_layers(
            lambda policy: _peak(lambda: _features(policy, tokens, proj_dim, projection, checkpointing))
        )

    def training(self, tokens: Tokens, *, checkpointing: bool) -> int:
        """The same of the forward and backward pass of an update, without the adapter's gradients and the optimizer."""
        logits = tokens.rows * tokens.length * TILE * torch.float32.itemsize
        return logits + self._by_layers(lambda policy: _peak(lambda: _update(policy, tokens, checkpointing)))

    def sampling(self, tokens: Tokens) -> int:
        """The same of sampling responses to prompts at once: when these are read, or when the last token is drawn."""
        prompts = self._by_layers(
            lambda policy: _peak(lambda: _read(policy, tokens.rows, tokens.prompt), MOST_OPERATIONS)
        )
        kept = self._by_layers(lambda policy: _kept(lambda: _read(policy, tokens.rows, tokens.length)))
        logits = tokens.rows * self.config.get_text_config().vocab_size
        return max(prompts, kept + kept // self.layers + logits * (self.dtype.itemsize + 3 * 4))

    def _by_layers(self, measure: Callable[[PeftModel], int]) -> int:
        if self.layers <= MORE:
            return measure(self._policy(self.layers))
        few, more = (measure(self._policy(layers)) for layers in (FEW, MORE))
        return round(few + (more - few) / (MORE - FEW) * (self.layers - FEW))

    def _policy(self, layers: int) -> PeftModel:
        if layers not in self._policies:
            config = deepcopy(self.config)
            text = config.get_text_config()
            text.num_hidden_layers = layers
            if getattr(text, ALIKE, None):
                setattr(text, ALIKE, list(getattr(text, ALIKE))[:layers])
            names = self.adapter.target_modules
            self._policies[layers] = random_policy(
                _without_memory(config, self.dtype, self.attention),
                r=self.adapter.r,
                lora_alpha=1,
                target_modules=names,
                seed=0,
            )
        return self._policies[layers]


def _without_memory(config: PretrainedConfig, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    with quiet_libraries(), seeded_library_state(0), META:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


class _Imagining(LiveStorages):
    """Follows storages of tensors without values, and answers what a library asks of a value with yes.

    Raises RuntimeError where there are more operations than `most`.
    """

    def __init__(self, most: float = math.inf) -> None:
        super().__init__()
        self._operations, self._most = 0, most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, if it is no question."""
        self._operations += 1
        if self._operations > self._most:
            raise RuntimeError("they have too many operations, as where a layer goes from token to token")
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return True if args[0].dtype == torch.bool else 1
        if func is torch.ops.aten._to_copy.default and args[0].is_meta and kwargs.get("device") == torch.device("cpu"):
            return torch.ones(args[0].shape, dtype=args[0].dtype)
        return super().__torch_dispatch__(func, types, args, kwargs)


def _peak(work: Callable[[], object], most: float = math.inf) -> int:
    with _fused_attention(), _Imagining(most) as live:
        work()
    return live.peak


def _kept(work: Callable[[], object]) -> int:
    """What is still there when the work is done and its result is held."""
    with _fused_attention(), _Imagining() as live:
        result = work()
        held = live.now
    del result
    return held


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Let attention take what its fused kernels do, of which torch has none on this device."""
    usual = nn.functional.scaled_dot_product_attention
    nn.functional.scaled_dot_product_attention = _as_fused
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = usual


def _as_fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    found: Tensor = _FusedAttention.apply(query, key, value)
    return found


class _FusedAttention(torch.autograd.Function):
    """Keeps the inputs, the output, and a number for each row of the products."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _features(policy: PeftModel, tokens: Tokens, proj_dim: int, projection: str, checkpointing: bool) -> None:
    """The pass of `gradients.per_response.response_gradients`."""
    ids, mask = _ids(tokens.rows, tokens.length), _ids(tokens.rows, tokens.length).bool()
    batch = ResponseBatch(ids, mask, mask, "right")
    sink = FeatureSink(make_projection(projection, proj_dim, 0), batch, torch.float32, False)
    with (
        torch.enable_grad(),
        evaluation_mode(policy),
        frozen_parameters(policy),
        embeddings_as_leaf(policy) as leaves,
        checkpointed_layers(policy, enabled=checkpointing),
        tapped(_matrices(policy), sink, batch, factor_dtype(policy)),
    ):
        logps = _response_logps(policy, ids, tokens)
        torch.autograd.grad(logps.sum(), leaves)


def _update(policy: PeftModel, tokens: Tokens, checkpointing: bool) -> None:
    """The pass of an update of the adapter."""
    adapter = [matrix.module.weight for matrix in _matrices(policy)]
    for weight in adapter:
        weight.requires_grad_(True)
    try:
        with torch.enable_grad(), checkpointed_layers(policy, enabled=checkpointing):
            torch.autograd.grad(
                _response_logps(policy, _ids(tokens.rows, tokens.length), tokens).sum(), adapter, allow_unused=True
            )
    finally:
        for weight in adapter:
            weight.requires_grad_(False)


def _response_logps(policy: PeftModel, ids: Tensor, tokens: Tokens) -> Tensor:
    states = last_hidden_states(policy, input_ids=ids, use_cache=False)
    layer = without_wrapper(policy).get_output_embeddings()
    at_responses = states[:, tokens.prompt - 1 : -1].reshape(-1, states.shape[-1])
    head = ResponseHead(layer.weight, getattr(layer, "bias", None), None)
    return head.logps(at_responses, _ids(len(at_responses)))


def _read(policy: PeftModel, rows: int, length: int) -> Any:
    """The pass over prompts that fills the cache."""
    with torch.no_grad():
        model: Any = without_wrapper(policy)
        return model(input_ids=_ids(rows, length), attention_mask=_ids(rows, length), use_cache=True, logits_to_keep=1)


def _ids(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.long, device=META)


def _matrices(policy: PeftModel) -> list[LoraMatrix]:
    """Those that a trained adapter has, whose B is not 0."""
    with _Imagining():
        return active_lora_matrices(policy)
