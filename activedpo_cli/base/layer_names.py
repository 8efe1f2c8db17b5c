"""Which layers LoRA adapts, as a setting."""

from typing import Annotated

from pydantic import AfterValidator


def sorted_layer_names(value: str | list[str]) -> str | list[str]:
    """Names of layers in order, given as a list or with commas between them; `all-linear` stays."""
    if value == "all-linear":
        return value
    names = value.split(",") if isinstance(value, str) else value
    cleaned = sorted({name.strip() for name in names} - {""})
    if not cleaned:
        raise ValueError("names at least one layer, or all-linear")
    return cleaned


LayerNames = Annotated[str | list[str], AfterValidator(sorted_layer_names)]
