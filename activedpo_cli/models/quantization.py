"""Linear layers of the base in 8 or 4 bits, by bitsandbytes, and what its layers need so that gradients are right.

Either way a layer multiplies by the values that its codes stand for, in the model's own number format, so that gradients are
the derivatives of log-probabilities. LLM.int8 itself (arXiv 2208.07339) rounds what comes in too, but for columns in which a
token of the batch is large: the log-probability of a token would depend on later ones, and on other texts.
"""

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError

Quantization = Literal["none", "8bit", "4bit"]
EXTRA = "quant"
LIBRARY = "bitsandbytes"


def loading_arguments(kind: Quantization, config: PretrainedConfig, name: str, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told, so that the weights come as `kind` says; nothing where that is none.

    Raises ActiveDPOError where bitsandbytes is not installed, or can't be loaded, and UsageError for a checkpoint that was
    quantised already.
    """
    if kind == "none":
        return {}
    if getattr(config, "quantization_config", None) is not None:
        raise UsageError(
            f"the weights of `{name}` are quantised already, and --quantization is for weights that are not",
            hint="leave --quantization out",
        )
    _require_library()
    wanted = (
        BitsAndBytesConfig(load_in_8bit=True)
        if kind == "8bit"
        else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    )
    return {
        "quantization_config": wanted,
        "device_map": {"": _numbered(device)},
    }  # 8-bit layers can't be moved afterwards


def _numbered(device: torch.device) -> torch.device:
    """The device with its number, by which accelerate compares a quantised model's with the one that it trains on."""
    if device.type != "cuda" or device.index is not None:
        return device
    return torch.device("cuda", torch.cuda.current_device())


def is_quantized(model: torch.nn.Module) -> bool:
    """Whether a model's own layers hold codes in the place of numbers, whoever has made them."""
    return any(not weights.is_floating_point() for weights in model.parameters())


def settle_quantized(model: PreTrainedModel, name: str) -> None:
    """Let what was quantised now compute in the model's own number format, and make sure that its scales are finite.

    Raises InvalidDataError where nothing was quantised, as where all weights are bare ones, and for weights that are not
    finite, which their codes do not show.
    """
    if not is_quantized(model):
        raise InvalidDataError(
            f"`{name}` has no linear layer that can be quantised", hint="make the run without --quantization"
        )
    for layer_name, layer in model.named_modules():
        if not all(bool(torch.isfinite(scale).all()) for scale in _scales(layer)):
            raise InvalidDataError(
                f"`{layer_name}.weight` of `{name}` holds values that are not finite",
                hint="the checkpoint is broken, or overflowed in its number format; take another one",
            )
        if hasattr(layer, "compute_type_is_set"):
            layer.compute_dtype, layer.compute_type_is_set = model.dtype, True  # type: ignore[assignment]


def _scales(layer: Any) -> Iterator[torch.Tensor]:
    """What the codes of a layer's weight are multiplied by, and what these scales are made of where they are codes too."""
    weight = getattr(layer, "weight", None)
    eight, four = getattr(weight, "SCB", None), getattr(weight, "quant_state", None)
    if eight is not None:
        yield eight
    if four is not None:
        nested = getattr(four, "state2", None)
        yield from (four.absmax,) if nested is None else (nested.absmax, four.offset)


def keep_exact(model: torch.nn.Module) -> None:
    """Let bitsandbytes' layers multiply by the values of their codes, alike in training and evaluation.

    On some CPUs 4-bit layers pack their weights for a kernel without a backward pass as soon as they are evaluated without
    gradients (`Linear4bit.forward`), which leaves log-probabilities right and gradients far too small.
    """
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        if getattr(getattr(layer, "weight", None), "SCB", None) is not None:
            layer.__class__ = _exact_eight_bits()  # PEFT tells layers by their class, so it stays one of bitsandbytes'


@cache
def _exact_eight_bits() -> type[torch.nn.Linear]:
    bitsandbytes: Any = importlib.import_module(LIBRARY)

    class ExactLinear8bit(bitsandbytes.nn.Linear8bitLt):  # type: ignore[misc]
        """A linear layer whose weight is held in 8 bits with a scale for each row, and used as the values these mean."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            product: torch.Tensor = _EightBitProduct.apply(x, self.weight, self.weight.SCB, self.bias)
            return product

    return ExactLinear8bit


class _EightBitProduct(torch.autograd.Function):
    """x Wᵀ + b; W exists as numbers only while it is multiplied by, in the backward pass too."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(codes, scales)
        values = _eight_bit_values(codes, scales, x.dtype)
        return torch.nn.functional.linear(x, values, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        codes, scales = ctx.saved_tensors
        return gradients[0] @ _eight_bit_values(codes, scales, gradients[0].dtype), None, None, None


def _eight_bit_values(codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    functional: Any = importlib.import_module(f"{LIBRARY}.functional")
    values: torch.Tensor = functional.int8_vectorwise_dequant(codes.detach(), scales)
    return values.to(dtype)


def _require_library() -> None:
    try:
        importlib.import_module(LIBRARY)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == LIBRARY
        said = "which is not installed" if missing else f"which can't be loaded: {error}"
        raise ActiveDPOError(
            f"--quantization needs the package {LIBRARY}, {said}",
            hint=f"pip install 'activedpo-cli[{EXTRA}]', or make the run without --quantization",
        ) from error
