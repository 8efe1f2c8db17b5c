"""Model folders that are damaged, or not what was meant, are refused with the libraries' words and the way out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_models import save_small_model
from small_policies import load
from transformers import Gemma2Config

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.models import loading_errors
from activedpo_cli.models.encoding import encode_prompt
from activedpo_cli.models.loading import load_tokenizer
from activedpo_cli.models.loading_errors import refusing_what_is_broken
from activedpo_cli.models.merging import merge_adapter_model
from activedpo_cli.models.resolve import resolve_model

Damage = Callable[[Path], object]


def changed(name: str, **fields: Any) -> Damage:
    return lambda folder: (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | fields))


def replaced(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data)


def split_by(pattern: str) -> Damage:
    pattern_of = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return changed("tokenizer.json", pre_tokenizer=pattern_of)


DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "no heads": (changed("config.json", num_attention_heads=0), "ZeroDivisionError", "damaged"),
    "text for a number": (changed("config.json", num_attention_heads="four"), "num_attention_heads", "damaged"),
    "a negative size": (changed("config.json", hidden_size=-32), "`hidden_size` is -32", "damaged"),
    "no layers": (changed("config.json", num_hidden_layers=0), "`num_hidden_layers` is 0", "damaged"),
    "no key heads": (changed("config.json", num_key_value_heads=0), "ZeroDivisionError", "damaged"),
    "pad beyond": (changed("config.json", pad_token_id=10**6), "Padding_idx", "damaged"),
    "no such format": (changed("config.json", dtype="float99"), "float99", "damaged"),
    "no such kind": (changed("config.json", model_type="nope"), "nope", "upgrade transformers"),
    "another kind": (changed("config.json", model_type="t5"), "t5", "causal language model"),
    "kind of a list": (changed("config.json", model_type=["llama"]), "unhashable", "damaged"),
    "no settings": (replaced("config.json", b"null"), "NoneType", "damaged"),
    "end of a text": (replaced("generation_config.json", b'{"eos_token_id": "x"}'), "'x'", "id of a token"),
    "ends of a text": (replaced("generation_config.json", b"[]"), "TypeError", "damaged"),
    "cut weights": (replaced("model.safetensors", b"x" * 99), "header", "weights are damaged"),
    "a pointer": (
        replaced("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        "header",
        "git lfs pull",
    ),
    "hostile pattern": (split_by("(((("), "Oniguruma", "damaged"),
    "no such tokenizer": (changed("tokenizer.json", model={"type": "Nope"}), "ModelUntagged", "damaged"),
    "list of settings": (replaced("tokenizer_config.json", b"[]"), "AttributeError", "damaged"),
    "number as a token": (replaced("tokenizer_config.json", b'{"eos_token": 7}'), "eos_token", "damaged"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "backend tokenizer", "pass a folder with"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_broken_is_named_with_the_way_out(model_folder, tmp_path: Path, kind: str) -> None:
    damage, said, hint = DAMAGES[kind]
    folder = Path(shutil.copytree(model_folder(), tmp_path / "model"))
    damage(folder)
    with pytest.raises(InvalidDataError) as refusal:
        (load(folder), load_tokenizer(str(folder)))
    assert str(folder) in refusal.value.message
    assert said in " ".join([refusal.value.message, *refusal.value.details])
    assert hint in (refusal.value.hint or "")


def test_an_attention_that_the_architecture_lacks(tmp_path: Path) -> None:
    """Gemma 2 caps its scores, which torch's kernel can't."""
    Gemma2Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=9).save_pretrained(tmp_path)
    save_file(load_file(save_small_model(tmp_path / "other") / "model.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(InvalidDataError) as refusal:
        load(tmp_path)
    assert "--set model.attn_implementation=eager" in refusal.value.hint


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError("You are trying to access a gated repo."), "accept the model's terms"),
        (ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes"), "before they were quantized"),
        (ValueError("requires you to execute the configuration file; set `trust_remote_code=True`"), "never executed"),
        (OSError("We couldn't connect to 'https://huggingface.co'"), "where the network is"),
        (ModuleNotFoundError("No module named 'tiktoken'", name="tiktoken"), "pip install tiktoken"),
    ],
)
def test_what_the_libraries_say_has_a_way_out(error: Exception, hint: str) -> None:
    with pytest.raises(ActiveDPOError) as refusal, refusing_what_is_broken("model", "acme/model"):
        raise error
    assert hint in (refusal.value.hint or "")
    assert refusal.value.exit_code == (1 if isinstance(error, ImportError) else 4), "a missing package is no bad file"


def test_interruptions_and_lack_of_memory_are_no_damage() -> None:
    for error in (KeyboardInterrupt(), MemoryError(), RuntimeError("CUDA out of memory")):
        with pytest.raises(type(error)), refusing_what_is_broken("model", "acme/model"):
            raise error


def test_a_panic_of_a_library_is_an_answer(model_folder, tmp_path: Path) -> None:
    """A pattern that takes too long ends in a panic, which is no `Exception`."""
    folder = Path(shutil.copytree(model_folder(), tmp_path / "model"))
    split_by("(a+)+(?=b)c")(folder)
    tokenizer = load_tokenizer(str(folder))
    with pytest.raises(InvalidDataError, match="gives up on a text"):
        encode_prompt(tokenizer, "a" * 60, chat_template="never")
    assert loading_errors.PANIC == "PanicException"


def test_the_base_of_an_adapter_is_no_adapter(model_folder, tmp_path: Path) -> None:
    """The reference would have both off."""
    base = load(model_folder())
    base.name_or_path = str(model_folder())
    get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    changed("adapter_config.json", base_model_name_or_path=str(tmp_path / "a"))(tmp_path / "b")
    with pytest.raises(InvalidDataError, match="a` is an adapter, and a whole model is needed"):
        merge_adapter_model(tmp_path / "b", tmp_path / "merged")


def test_packed_weights_are_no_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidDataError, match=r"tiny\.gguf` is a file") as refusal:
        resolve_model("models/tiny.gguf")
    assert "which converts it" in refusal.value.details[0]
    with pytest.raises(InvalidDataError, match=r"no config\.json, but `tiny\.gguf`") as refusal:
        resolve_model("models")
    assert "--model models/tiny.gguf" in refusal.value.hint


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InvalidDataError, match="is a file") as refusal:
        resolve_model(str(tmp_path / "model.safetensors"))
    assert "pass the folder" in refusal.value.hint
