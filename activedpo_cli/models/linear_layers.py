"""The linear layers of a model, which LoRA can adapt."""

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from activedpo_cli.base.errors import UsageError


def linear_layer_names(model: PreTrainedModel) -> list[str]:
    """The names by which `adapter.target_modules` can call layers of this model, its output layer left out."""
    return sorted({path.rpartition(".")[2] for path in _linear_layers(model)})


def checked_targets(
    model: PreTrainedModel, wanted: str | list[str], setting: str = "adapter.target_modules"
) -> str | list[str]:
    """The layers to adapt as PEFT takes them; raises UsageError, naming the setting, for names that are not there."""
    if wanted == "all-linear":
        return wanted
    linear = _linear_layers(model)
    names = [wanted] if isinstance(wanted, str) else wanted
    unknown = [name for name in names if not any(f".{path}".endswith(f".{name}") for path in linear)]
    if unknown:
        raise UsageError(
            f"{setting}: this model has no layer {', '.join(f'`{name}`' for name in unknown)}",
            details=[f"its linear layers: {', '.join(linear_layer_names(model))}"],
            hint=f"{_given(setting, 'all-linear')}, or some of these with commas between them",
        )
    return names


def _given(setting: str, value: str) -> str:
    """How a setting, or a flag that is no setting, is given."""
    return f"{setting} {value}" if setting.startswith("--") else f"--set {setting}={value}"


def _linear_layers(model: PreTrainedModel) -> list[str]:
    head = model.get_output_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head
    ]
