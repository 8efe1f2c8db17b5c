"""A policy's files for readers elsewhere: the settings of its adapter, how it samples, and what serves it."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel
from transformers import PreTrainedModel

from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.models.adapters import ATTACHING_ERRORS
from activedpo_cli.models.foreign_adapter import CONFIG_FILE
from activedpo_cli.models.loading import generation_config_at
from activedpo_cli.models.quantization import Quantization
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.served_ranks import LIMITS, served_limit

Form = Literal["adapter", "merged"]
SAME_ARITHMETIC = 1e-3
"""Nats per token by which log-probabilities may differ where the same numbers are computed, or float32 ones."""
ROUNDED_WEIGHTS = 5e-2
"""The same where an update was added to weights in half precision, and the sum rounded to it."""


_CODES: Mapping[Quantization, str] = {
    "none": "",
    "8bit": "load_in_8bit=True",
    "4bit": "load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype='{}'",
}


def tolerance_of(form: Form, number_format: str) -> float:
    """How far a token's log-probability may be off in the mean over texts, in nats, where only rounding differs."""
    return SAME_ARITHMETIC if form == "adapter" or number_format == "torch.float32" else ROUNDED_WEIGHTS


def adapter_settings_for(folder: Path, base_name: str, revision: str | None) -> bytes:
    """`adapter_config.json` of a folder, with another name of the base and the commit that it was at."""
    settings = json.loads(read_limited(folder / CONFIG_FILE))
    settings |= {"base_model_name_or_path": base_name, "revision": revision}
    return (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()


def generation_settings(location: str, revision: str | None) -> bytes:
    """`generation_config.json` of a base, as text."""
    return generation_config_at(location, revision).to_json_string(use_diff=True).encode()


def attach_as_others_do(base: PreTrainedModel, folder: Path) -> PeftModel:
    """The base with the adapter of a folder, by PEFT's own reading; raises ValueError where PEFT can't."""
    try:
        with quiet_libraries():
            return PeftModel.from_pretrained(base, str(folder)).eval()
    except ATTACHING_ERRORS as error:
        raise ValueError(f"PEFT does not read it: {error}".partition("\n")[0]) from error


@dataclass(frozen=True, kw_only=True)
class Usage:
    """How an exported policy is used.

    Attributes:
        serve: The command that serves it.
        python: Lines that load it.
        warning: Why a server may not take it as it is; None where nothing is known against it.

    """

    serve: str
    python: str
    warning: str | None = None


def usage_of(
    form: Form, place: str, settings: Mapping[str, Any], number_format: str, quantization: Quantization = "none"
) -> Usage:
    """How a merged model, or an adapter with these settings of PEFT, is served and loaded from a folder or the hub.

    The number format (`float32`) is named, and how the base is quantised: left to themselves, transformers takes the
    checkpoint's, and vLLM makes 16 bits of 32.
    """
    dtype = ["--dtype", number_format]
    if form == "merged":
        python = f"from transformers import pipeline\n\nwrite = pipeline('text-generation', model={place!r})"
        return Usage(serve=shlex.join(["vllm", "serve", place, *dtype]), python=python)
    base, revision = str(settings["base_model_name_or_path"]), settings.get("revision")
    words = ["vllm", "serve", base, *(["--revision", str(revision)] if revision else []), *dtype]
    words += ["--quantization", "bitsandbytes"] if quantization != "none" else []
    rank = int(settings["r"])
    words += ["--enable-lora", "--max-lora-rank", str(served_limit(rank) or rank)]
    words += ["--lora-modules", f"policy={place}"]
    python = _python(base, revision, place, number_format, _CODES[quantization].format(number_format))
    return Usage(serve=shlex.join(words), python=python, warning=_unserved(settings, quantization))


def _python(base: str, revision: Any, place: str, number_format: str, codes: str) -> str:
    """Lines that load base and adapter; PEFT's own loader of both would give the base a row for each token that has none."""
    arguments = [repr(base), *([f"revision={str(revision)!r}"] if revision else []), f"dtype={number_format!r}"]
    arguments += ["quantization_config=codes"] if codes else []
    return "\n".join(
        [
            "from peft import PeftModel",
            f"from transformers import AutoModelForCausalLM, AutoTokenizer{', BitsAndBytesConfig' if codes else ''}",
            "",
            *([f"codes = BitsAndBytesConfig({codes})"] if codes else []),
            f"base = AutoModelForCausalLM.from_pretrained({', '.join(arguments)})",
            f"model = PeftModel.from_pretrained(base, {place!r})",
            f"tokenizer = AutoTokenizer.from_pretrained({place!r})",
        ]
    )


def _unserved(settings: Mapping[str, Any], quantization: Quantization) -> str | None:
    if quantization == "8bit":
        return "its base is in 8 bits, which others multiply by rounding what comes in too: they compute a little else"
    if served_limit(int(settings["r"])) is None:
        return f"its rank is {settings['r']}, and vLLM takes at most {LIMITS[-1]}: serve whole weights (--merged)"
    if settings.get("target_parameters"):
        return "it adapts bare weights, as of experts, which a server may not take: serve whole weights (--merged)"
    return None
