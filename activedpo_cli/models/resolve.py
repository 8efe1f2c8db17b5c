"""Finds the model that a name means (built in, alias, folder, hub), and the digests that identify its weights."""

import difflib
import hashlib
import importlib.util
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activedpo_cli.base.digests import sha256_of
from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, RefusedError
from activedpo_cli.models.built_in import BUILT_IN_MODEL, LANGUAGE_MODEL, is_built_in

ALIASES = {
    "gemma-2b": "google/gemma-2b",
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "qwen3-4b": "Qwen/Qwen3-4B",
}
"""Short names of the models in the paper and of a newer one."""

HUB_TIMEOUT_SECONDS = 5.0
LONGEST_NAME = 200
GGUF_LIBRARY = "gguf"
"""The package, and the extra that brings it."""
SMALL_FILE_BYTES = 16 * 2**20
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGESTED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
)


@dataclass(frozen=True, kw_only=True)
class ModelLocation:
    """Where a model lies: a folder or GGUF file (`path`, absolute), or the hub (`hub_id` at the commit `revision`)."""

    name: str
    path: str | None
    hub_id: str | None
    revision: str | None

    @property
    def source(self) -> str:
        """What the libraries' `from_pretrained` takes."""
        return self.path or self.hub_id or self.name


def resolve_model(name: str, revision: str | None = None, *, may_be_packed: bool = False) -> ModelLocation:
    """Find a model by the built-in one's name, alias, local folder or hub id; reads at most one small answer from the hub.

    With `may_be_packed` the name of a GGUF file means that file, for those who convert it. Raises InvalidDataError for a
    folder that holds no model, and ActiveDPOError when the name is neither a folder, nor cached, nor reachable, or the
    package that reads GGUF is missing.
    """
    target = str(LANGUAGE_MODEL) if is_built_in(name) else ALIASES.get(name, name)
    folder = Path(target).expanduser()
    if _is_folder(folder):
        if not ((folder / "config.json").is_file() or is_adapter_folder(folder)):
            packed = next(iter(sorted(folder.glob("*.gguf"))), None)
            if packed is not None:
                raise _holds_packed(name, packed)
            raise InvalidDataError(
                f"`{name}` is not a model folder: it holds no config.json",
                hint="pass the folder that holds config.json and the *.safetensors files",
            )
        return ModelLocation(name=name, path=str(folder.resolve()), hub_id=None, revision=None)
    if may_be_packed and is_gguf_file(folder):
        _require_gguf_reader(name)
        # A link, as in the hub's cache, may lead to a file of another name.
        return ModelLocation(name=name, path=str(folder.absolute()), hub_id=None, revision=None)
    if _is_file(folder):
        raise _is_no_folder(name, folder)
    if not _may_be_hub_id(target):
        raise InvalidDataError(
            f"there is no model folder `{name}`", hint="check the path, or pass a hub id or an alias"
        )
    return ModelLocation(name=name, path=None, hub_id=target, revision=_hub_commit(name, target, revision))


def is_adapter_folder(folder: str | Path) -> bool:
    """Whether a folder holds a LoRA adapter, which has to be merged before it can be π_SFT."""
    return (Path(folder) / "adapter_config.json").is_file()


def is_gguf_file(path: str | Path) -> bool:
    """Whether a path leads to a file by whose name its weights are packed as GGUF, and have to be converted."""
    return Path(path).suffix.lower() == ".gguf" and _is_file(Path(path))


def model_digest(location: ModelLocation) -> dict[str, Any]:
    """The record that says which weights were meant: the location, each file's size and hash, one digest of all.

    A hub model is identified by its commit. Raises InvalidDataError for weights that are not safetensors, or of which
    a part is missing.
    """
    if location.path is None:
        return asdict(location) | {
            "files": {},
            "digest": digest_of_files({f"{location.hub_id}": f"{location.revision}"}),
        }
    folder = Path(location.path)
    _require_safetensors(folder)
    paths = sorted(digested_files(folder))
    hashes = {path.name: sha256_of(path) for path in paths}
    files = {path.name: {"bytes": path.stat().st_size, "sha256": hashes[path.name]} for path in paths}
    return asdict(location) | {"files": files, "digest": digest_of_files(hashes)}


def check_unchanged(record: dict[str, Any]) -> None:
    """Refuse when the folder of a `model_digest` record differs: all sizes, and the hashes of files below 16 MiB.

    A changed weight of equal size in a large file is not seen here; `model_digest` sees it.
    """
    if record["path"] is None:
        return
    folder = Path(record["path"])
    differing = [name for name, entry in record["files"].items() if _differs(folder / name, entry)]
    if differing:
        raise RefusedError(
            f"the model in `{folder}` is not the one this run was made with",
            details=[f"changed or missing: {name}" for name in differing],
            hint="restore these files, or make a new run with this model",
        )


def _differs(path: Path, entry: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != entry["bytes"]:
        return True
    return entry["bytes"] < SMALL_FILE_BYTES and sha256_of(path) != entry["sha256"]


def digested_files(folder: Path) -> set[Path]:
    """The files of a folder that make up a model: weights, configurations and tokenizer."""
    return {path for pattern in DIGESTED for path in folder.glob(pattern) if path.is_file()}


def _require_safetensors(folder: Path) -> None:
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        raise InvalidDataError(
            f"`{folder}` holds no *.safetensors weights" + (f", only pickled ones ({pickled[0]})" if pickled else ""),
            details=["pickled weights can run any code when loaded, so they are never read"] if pickled else [],
            hint="load the model where you trust it and write it with `model.save_pretrained(folder)`",
        )
    for index in folder.glob("*.safetensors.index.json"):
        shards = _shards(index)
        missing = sorted(name for name in shards if not (folder / name).is_file())
        if missing:
            raise InvalidDataError(f"`{folder}` lacks {missing[0]}, which {index.name} names")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # such as a name that is too long
        return False


def _is_file(path: Path) -> bool:
    """Whether something that is no folder lies at a path."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def _is_no_folder(name: str, path: Path) -> InvalidDataError:
    is_packed = is_gguf_file(path)
    return InvalidDataError(
        f"`{name}` is a file, and a model is a folder with config.json and *.safetensors weights",
        details=["a GGUF file is read for `--model` of a run, which converts it, and by `doctor`"] if is_packed else [],
        hint="take the model that it was made from, or `reference/model` of a run that was made with the file"
        if is_packed
        else "pass the folder that the file is in",
    )


def _holds_packed(name: str, packed: Path) -> InvalidDataError:
    return InvalidDataError(
        f"`{name}` is not a model folder: it holds no config.json, but `{packed.name}`",
        hint=f"pass the file itself: --model {packed}",
    )


def _require_gguf_reader(name: str) -> None:
    if importlib.util.find_spec(GGUF_LIBRARY) is None:
        raise ActiveDPOError(
            f"reading `{name}` needs the package {GGUF_LIBRARY}, which is not installed",
            hint=f"pip install 'activedpo-cli[{GGUF_LIBRARY}]'",
        )


def _shards(index: Path) -> set[str]:
    """The files that an index names, which lie beside it."""
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        if any(Path(name).name != name or len(name) > LONGEST_NAME for name in names):
            raise ValueError("it names files that do not lie beside it")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidDataError(f"`{index}` is damaged", details=[str(error)]) from error
    return names


def _may_be_hub_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _hub_commit(name: str, hub_id: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, constants

    cached = _cached_commit(hub_id, revision)
    if cached and (constants.HF_HUB_OFFLINE or COMMIT.fullmatch(revision or "")):
        return cached
    try:
        found = HfApi().model_info(hub_id, revision=revision, timeout=HUB_TIMEOUT_SECONDS).sha
    except Exception as error:  # the hub's client raises its own, httpx's and OS errors alike
        if cached:
            return cached
        raise _not_found(name, hub_id, error) from error
    assert found is not None, "the hub answers with a commit"
    return found


def _cached_commit(hub_id: str, revision: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    return Path(config).parent.name if isinstance(config, str) else None


def _not_found(name: str, hub_id: str, error: Exception) -> ActiveDPOError:
    close = difflib.get_close_matches(name, [*ALIASES, BUILT_IN_MODEL], n=1) if name not in ALIASES else []
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ActiveDPOError(
        f"`{name}` is neither a local folder, nor a cached model, nor reachable on the hub"
        + (f" — did you mean `{close[0]}`?" if close else ""),
        details=[f"{hub_id}: {reason}"],
        hint=f"download it where the network is (`hf download {hub_id} --local-dir FOLDER`) and pass `--model FOLDER`",
    )


def digest_of_files(parts: dict[str, str]) -> str:
    """One digest of files by their names and hashes."""
    lines = "".join(f"{name} {value}\n" for name, value in sorted(parts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
