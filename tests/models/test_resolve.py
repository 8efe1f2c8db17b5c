"""Names of models become places and digests, quickly and without guessing."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, RefusedError
from activedpo_cli.models import resolve
from activedpo_cli.models.built_in import LANGUAGE_MODEL
from activedpo_cli.models.resolve import check_unchanged, model_digest, resolve_model


def test_local_folder(model_folder):
    folder = model_folder()
    location = resolve_model(str(folder))
    assert (location.path, location.hub_id, location.source) == (str(folder.resolve()), None, str(folder.resolve()))


def test_folder_without_config_is_named(tmp_path):
    with pytest.raises(InvalidDataError, match=r"config\.json"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("name", ["./not/there", "/not/there/model", "a b"])
def test_missing_path_does_not_ask_the_hub(name, monkeypatch):
    monkeypatch.setattr(resolve, "_hub_commit", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(ActiveDPOError, match="no model folder"):
        resolve_model(name)


def test_unreachable_hub_fails_fast_with_the_nearest_alias(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(ActiveDPOError) as caught:
        resolve_model("gema-2b")
    assert time.monotonic() - started < 10
    assert caught.value.exit_code == 1
    assert "neither a local folder, nor a cached model, nor reachable" in caught.value.message
    assert "gemma-2b" in caught.value.message
    assert "--model FOLDER" in caught.value.hint


def test_alias_and_cached_snapshot(monkeypatch, tmp_path):
    commit = "a" * 40
    cached = tmp_path / "snapshots" / commit / "config.json"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(cached))
    location = resolve_model("gemma-2b")
    assert (location.path, location.hub_id, location.revision) == (None, "google/gemma-2b", commit)
    assert model_digest(location)["digest"] != model_digest(resolve_model("qwen3-4b"))["digest"]


def test_digest_is_of_the_files_and_sees_one_byte(model_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(model_folder(), folder)
    record = model_digest(resolve_model(str(folder)))
    weights = (folder / "model.safetensors").read_bytes()
    assert record["files"]["model.safetensors"] == {
        "bytes": len(weights),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} < set(record["files"])
    check_unchanged(json.loads(json.dumps(record)))
    (folder / "notes.txt").write_text("not part of the model")
    check_unchanged(record)
    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert model_digest(resolve_model(str(folder)))["digest"] != record["digest"]
    with pytest.raises(RefusedError) as caught:
        check_unchanged(record)
    assert caught.value.details == ("changed or missing: model.safetensors",)


def test_pickled_weights_are_refused(model_folder, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InvalidDataError, match="safetensors") as caught:
        model_digest(resolve_model(str(tmp_path)))
    assert "pytorch_model.bin" in caught.value.message


def test_missing_shard_is_named(model_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(model_folder(), folder)
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidDataError, match="model-00002-of-00002"):
        model_digest(resolve_model(str(folder)))


def test_resolving_does_not_import_torch(model_folder):
    code = (
        "import sys; from activedpo_cli.models.resolve import *; "
        "model_digest(resolve_model(sys.argv[1])); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(model_folder())], check=True)


def test_the_built_in_model_and_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(resolve_model("tiny").path) == LANGUAGE_MODEL
    (tmp_path / "tiny").mkdir()
    assert Path(resolve_model("tiny").path) == LANGUAGE_MODEL  # a folder of that name need not be a model
    (tmp_path / "tiny" / "config.json").write_text("{}")
    assert resolve_model("tiny").path == str(tmp_path / "tiny")
