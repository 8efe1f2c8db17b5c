"""Turn a GGUF file into a model folder: its weights as plain numbers, its tokenizer and its chat template.

Transformers reads the file, and drops without a word what it has no place for; what that would change is refused here.
"""

import io
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.regular_files import open_regular
from activedpo_cli.models.loading import DTYPES, load_tokenizer, require_complete, require_finite
from activedpo_cli.models.loading_errors import refusing_what_is_broken
from activedpo_cli.models.merging import write_full_weights
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.random_state import seeded_library_state

FACTORS = "rope_freqs.weight"
"""The tensor of factors by which the frequencies of positions are divided, as in Llama 3."""
HEAD = "output.weight"
SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
"""What the format and transformers call the same tokens."""
LIMITS = {
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""What the format and transformers call limits on what a token sees, and on scores and logits."""
OTHER_FORM = "take the model that it was made from, as a hub id or a folder"


@dataclass(frozen=True)
class _Contents:
    """What a file says: how its matrices are stored, how many weights there are, and in the head, which ids are special."""

    form: str
    weights: int
    head: int
    architecture: str
    scaling: str
    limits: dict[str, float]
    special: dict[str, int]


def convert_gguf(file: Path, dtype: str, destination: Path) -> str:
    """Write the model of a GGUF file into `destination`, as safetensors, in the number format `dtype`; say what it was.

    `auto` is bfloat16, and float32 for a file whose matrices are in float32. Raises InvalidDataError for a file that is
    damaged, is one part of several, lacks weights, or holds what transformers would drop.
    """
    name = str(file)
    with refusing_what_is_broken("model", name), _quiet():
        open_regular(file).close()
        contents = _read(file)
    number = DTYPES.get(dtype) or (torch.float32 if contents.form == "F32" else torch.bfloat16)
    # Libraries read whatever else lies in the folder of the file.
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / file.name).symlink_to(file.resolve())
        # Filling missing weights draws from the global random state.
        with refusing_what_is_broken("model", name), _quiet(), seeded_library_state(0):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                alone,
                gguf_file=file.name,
                dtype=number,
                trust_remote_code=False,
                output_loading_info=True,
                **_written_out(),
            )
        with refusing_what_is_broken("tokenizer of", name), _quiet():
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=file.name, trust_remote_code=False)
            _name_special_tokens(tokenizer, contents.special)
    model, report = loaded
    require_complete(name, report)
    _take_window(model, contents)
    _refuse_dropped(name, contents, model)
    require_finite(model, name)
    _forget_form(model)
    _end_at_turns(model, contents.special)
    write_full_weights(model, tokenizer, destination)
    load_tokenizer(str(destination))
    return f"{contents.architecture}, {contents.form}, to {str(number).removeprefix('torch.')}"


@contextmanager
def _quiet() -> Iterator[None]:
    """As `quiet_libraries`, and without the progress bar of this conversion, which nothing else switches off."""
    with quiet_libraries(), redirect_stderr(io.StringIO()):
        yield


def _read(file: Path) -> _Contents:
    """Look at the file's fields and tensors; raises InvalidDataError for one that no library would read as it is meant."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    parts = reader.fields.get("split.count")
    if parts is not None and int(parts.contents()) > 1:
        raise InvalidDataError(
            f"`{file}` is one of {int(parts.contents())} files of a model",
            hint="join them with `llama-gguf-split --merge FIRST JOINED.gguf`, and pass what comes out",
        )
    architecture = reader.fields["general.architecture"].contents()
    factors = next((tensor for tensor in reader.tensors if tensor.name == FACTORS), None)
    if factors is not None and (factors.data != 1).any():
        raise InvalidDataError(
            f"`{file}` divides the frequencies of positions (`{FACTORS}`), which transformers would not do",
            details=["the model would be another one than its file means"],
            hint=OTHER_FORM,
        )
    matrices = [tensor for tensor in reader.tensors if len(tensor.shape) > 1]
    forms = Counter(tensor.tensor_type.name for tensor in matrices)
    sizes = {tensor.name: math.prod(int(size) for size in tensor.shape) for tensor in reader.tensors}
    sizes.pop(FACTORS, None)
    scaling = reader.fields.get(f"{architecture}.rope.scaling.type")
    return _Contents(
        form=forms.most_common(1)[0][0] if forms else "no matrices",
        weights=sum(sizes.values()),
        head=sizes.get(HEAD, 0),
        architecture=architecture,
        scaling="none" if scaling is None else scaling.contents(),
        limits={
            name: float(value)
            for name in LIMITS
            if (field := reader.fields.get(f"{architecture}.{name}")) is not None
            and isinstance(value := field.contents(), int | float)
            and value != 0
        },
        special={
            name: int(field.contents())
            for name in (*SPECIAL, "eot")
            if (field := reader.fields.get(f"tokenizer.ggml.{name}_token_id")) is not None
        },
    )


def _name_special_tokens(tokenizer: PreTrainedTokenizerBase, special: dict[str, int]) -> None:
    """Let the file say which tokens begin, end and fill a text; some versions of transformers take others than it names."""
    for name, attribute in SPECIAL.items():
        if name in special:
            setattr(tokenizer, attribute, tokenizer.convert_ids_to_tokens(special[name]))


def _end_at_turns(model: PreTrainedModel, special: dict[str, int]) -> None:
    """Let a response end where a turn does, too, where the file knows of a token for that."""
    ends = [special[name] for name in ("eos", "eot") if name in special]
    if len(set(ends)) > 1:
        model.generation_config.eos_token_id = ends


def _take_window(model: PreTrainedModel, contents: _Contents) -> None:
    """Give Phi-3 the window that its file names: transformers has a place for it, and does not read it."""
    window = contents.limits.get("attention.sliding_window")
    if window is not None and contents.architecture == "phi3":
        model.config.sliding_window = int(window)


def _refuse_dropped(name: str, contents: _Contents, model: PreTrainedModel) -> None:
    """Raise InvalidDataError where the file says more than the model that was made of it holds."""
    own = sum(weights.numel() for weights in model.parameters())
    tied_head = contents.head if model.config.get_text_config().tie_word_embeddings else 0
    if contents.weights - tied_head > own:
        raise InvalidDataError(
            f"`{name}` holds {contents.weights:,} weights, and transformers makes a model of {own:,} of it",
            details=["the others would be dropped, and the model would be another one"],
            hint=OTHER_FORM,
        )
    rope: Any = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    if contents.scaling != "none" and rope.get("rope_type", "default") == "default":
        raise InvalidDataError(
            f"`{name}` stretches positions ({contents.scaling}), which transformers would not do",
            hint=OTHER_FORM,
        )
    for key, value in contents.limits.items():
        own_value = getattr(model.config.get_text_config(), LIMITS[key], None)
        if own_value != value:
            raise InvalidDataError(
                f"`{name}` says `{key}` {value:g}, and transformers makes a model with {own_value or 'none'} of it",
                details=["the model would be another one than its file means"],
                hint=OTHER_FORM,
            )


def _written_out() -> dict[str, Any]:
    """What asks for plain weights, where the installed transformers could leave them in the blocks of the file."""
    kind = getattr(transformers, "GgufConfig", None)
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}


def _forget_form(model: PreTrainedModel) -> None:
    """Let the model be one of plain weights: neither it nor its configuration says that it was packed."""
    for holder in (model.config, model.config.get_text_config()):
        if hasattr(holder, "quantization_config"):
            del holder.quantization_config
    for attribute in ("hf_quantizer", "is_quantized", "quantization_method"):
        if attribute in vars(model):
            delattr(model, attribute)
