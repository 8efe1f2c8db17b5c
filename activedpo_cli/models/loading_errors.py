"""What is said when a model, a tokenizer or a configuration can't be loaded: the libraries' words, and the way out.

A folder of others may hold anything, and the libraries answer with any exception of Python, or with the panic of a library
in Rust, which is no `Exception`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.base.out_of_memory import is_out_of_memory

PANIC = "PanicException"
LFS_POINTER = b"version https://git-lfs"
FOLDER = "pass a folder with config.json, tokenizer files and *.safetensors weights of a causal language model"
HINTS = (  # the first whose words stand in the error says the way out; small letters
    (
        ("attn_implementation", "scaled_dot_product_attention", "flashattention", "flash_attn"),
        "make the run with `--set model.attn_implementation=eager`, which every architecture has; "
        "`activedpo doctor --model` with it says whether the model needs more",
    ),
    (
        ("gated", "401 client error", "403 client error", "access to model"),
        "accept the model's terms on its page of the hub, then `hf auth login`",
    ),
    (
        ("gguf model with architecture", "gguf model_type", "tokenizer from a gguf file"),
        "take the model that the file was made from, as a hub id or a folder: of GGUF, transformers reads some kinds alone",
    ),
    (
        ("bitsandbytes", "optimum", "gptq", "quantiz", "autoawq", "compressed-tensors"),
        "install what it names, or take the model's weights as they were before they were quantized",
    ),
    (
        ("trust_remote_code", "execute the configuration file", "custom code"),
        "code that comes with a model is never executed: take a model of an architecture that transformers knows",
    ),
    (
        ("does not recognize this architecture", "unrecognized model"),
        "if the model is new, `pip install --upgrade transformers`; code that comes with a model is never executed",
    ),
    (("unrecognized configuration class",), "take a causal language model: one that continues a text"),
    (
        ("deserializing header", "incomplete metadata", "invalid header", "file not fully covered"),
        "its weights are damaged or not all there: copy or download them again",
    ),
    (("connect", "offline mode", "timed out"), "download it where the network is, and pass the folder"),
    (("no file named", "does not appear to have a file", "backend tokenizer", "can't load tokenizer"), FOLDER),
)
OTHERWISE = "its files are damaged, or say what no model of its kind has: copy or download them again"


@contextmanager
def refusing_panics(text: str) -> Iterator[None]:
    """Raise InvalidDataError where a tokenizer panics over a text, as over a pattern that takes too long to match."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise InvalidDataError(
            "the tokenizer gives up on a text", details=[*_words(error), f"the text is {excerpt(text)}"], hint=OTHERWISE
        ) from error


@contextmanager
def refusing_what_is_broken(what: str, name: str) -> Iterator[None]:
    """Raise InvalidDataError that `what` of `name` cannot be loaded, whatever a library raises, but for lack of memory.

    Raises ActiveDPOError itself where a package is missing: nothing is wrong with the files then.
    """
    try:
        yield
    except ActiveDPOError:
        raise
    except BaseException as error:
        is_of_a_library = isinstance(error, Exception) or type(error).__name__ == PANIC
        if not is_of_a_library or is_out_of_memory(error):
            raise
        kind = ActiveDPOError if isinstance(error, ImportError) else InvalidDataError
        raise kind(
            f"the {what} `{name}` cannot be loaded", details=_words(error), hint=_hint(error, Path(name))
        ) from error


def _words(error: BaseException) -> list[str]:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()][:3]
    if isinstance(error, OSError | ValueError | RuntimeError | ImportError) and lines:
        return lines
    return [f"{type(error).__name__}: {lines[0]}", *lines[1:]] if lines else [type(error).__name__]


def _hint(error: BaseException, folder: Path) -> str:
    pointer = next((path for path in _weights(folder) if _begins(path, LFS_POINTER)), None)
    if pointer is not None:
        return f"`{pointer.name}` is a pointer of Git LFS and not the weights: `git lfs pull` in the folder"
    text = str(error).lower()
    for words, hint in HINTS:
        if any(word in text for word in words):
            return hint
    return f"pip install {error.name}" if isinstance(error, ModuleNotFoundError) and error.name else OTHERWISE


def _weights(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return [folder] if folder.is_file() else []
    return sorted(path for path in folder.glob("*.safetensors") if path.is_file())


def _begins(path: Path, data: bytes) -> bool:
    with open(path, "rb") as stream:
        return stream.read(len(data)) == data
