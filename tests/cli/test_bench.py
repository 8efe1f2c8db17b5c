"""`activedpo bench featurize` from the outside."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, done, refused

from activedpo_cli.cli.bench_output import verdict

KEYS = {
    "ratio_to_plain",
    "tokens_per_second",
    "peak_memory_bytes",
    "peak_memory_bytes_plain",
    "cosine_rmse",
    "cosine_rmse_floor",
    "ratio_to_one_at_a_time",
    "plain_seconds",
    "features_seconds",
    "all_plain_seconds",
    "all_features_seconds",
    "model",
    "parameters",
    "lora_parameters",
    "proj_dim",
    "projection",
    "projection_width",
    "responses",
    "tokens",
    "tokens_per_batch",
    "dtype",
    "device",
    "threads",
    "torch",
}
THIN = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('trl', 'datasets', 'jaxtyping', 'matplotlib'):
            raise ModuleNotFoundError(f'{name} is blocked', name=name)

assert 'torch' not in sys.modules
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ('trl', 'datasets') else find(name, package)
sys.meta_path.insert(0, Blocked())
from activedpo_cli.cli.app import app
app(sys.argv[1:])
"""


def bench(*words: object) -> tuple[object, ...]:
    """Few short responses."""
    sizes = ("--responses", 4, "--prompt-tokens", 3, "--response-tokens", 3, "--repeats", 1, "--proj-dim", 64)
    return ("bench", "featurize", *sizes, "--lora-r", 4, "--device", "cpu", *words)


def measured(*words: object) -> dict[str, Any]:
    result = done(*bench(*words, "--json"))
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_json_about_a_folder(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = measured("--model", small_model, "--repeats", 3, "--tokens-per-batch", 12)
    assert set(found) >= KEYS
    assert min(found[key] for key in ("ratio_to_plain", "tokens_per_second", "ratio_to_one_at_a_time")) > 0
    assert found["peak_memory_bytes"] > found["peak_memory_bytes_plain"] > 0
    assert found["cosine_rmse_floor"] == 1 / 8
    assert 0 < found["cosine_rmse"] < 0.5
    assert found["cosine_pairs"] == 2
    assert len(found["all_plain_seconds"]) == len(found["all_features_seconds"]) == 3
    assert found["features_seconds"] == sorted(found["all_features_seconds"])[1]
    assert found["tokens"] == 4 * 6
    assert found["one_at_a_time"]["projected_share"] == 1
    # q, k, v and o of a layer of width 32, with keys and values of width 16
    assert found["lora_parameters"] == 4 * (64 + 48 + 48 + 64)
    assert found["dtype"] == "float32"
    assert list(tmp_path.iterdir()) == [], "no run is made"


def test_the_default_is_the_speed_lines_model(monkeypatch: pytest.MonkeyPatch) -> None:
    result = done("bench", "featurize", "--responses", 2, "--prompt-tokens", 3, "--response-tokens", 3, "--repeats", 1,
                  "--no-one-at-a-time", "--json")  # fmt: skip
    found = json.loads(result.stdout)
    given = {key: found[key] for key in ("model", "lora_r", "lora_alpha", "lora_modules", "proj_dim", "projection")}
    assert given == {
        "model": "tiny-llama-15m",
        "lora_r": 32,
        "lora_alpha": 128,
        "lora_modules": "all-linear",
        "proj_dim": 8192,
        "projection": "factored",
    }
    assert (found["parameters"], found["lora_parameters"]) == (15_537_792, 1_634_304)
    assert found["ratio_to_one_at_a_time"] is None
    assert found["one_at_a_time"] is None


def test_text_is_a_table_and_a_verdict(small_model: Path) -> None:
    text = done(*bench("--model", small_model, "--lora-modules", "v_proj,q_proj", "--quiet")).stdout
    assert "LoRA with random A and B: r 4, alpha 512, q_proj, v_proj" in text
    for row in ("plain pass", "features", "one at a time"):
        assert re.search(rf"^{row}  +[\d.e+]+  +\d+", text, re.MULTILINE), text
    assert "timed on 4 of 4 responses." in text
    assert re.search(r"cosines of 6 pairs are off by 0\.\d{4}, a dense one's by 0\.1250", text)
    assert re.search(
        r"^Features cost \d+\.\d\d × the plain pass, .* less than one response at a time with a dense projection; the proj",
        text,
        re.M,
    )


def test_progress_goes_to_stderr(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from activedpo_cli.cli import render

    monkeypatch.setattr(render, "PLAIN_INTERVAL", 0.0)
    words = bench("--model", small_model, "--no-one-at-a-time")
    assert "measure  7 / 7 passes" in done(*words).stderr
    assert done(*words, "--quiet").stderr == ""


def test_the_verdict_follows_from_the_error(small_model: Path) -> None:
    from types import SimpleNamespace

    from activedpo_cli.gradients.quality import ProjectionQuality

    def said(rmse: float) -> str:
        quality = ProjectionQuality(rmse, floor=0.1, dense=0.1, pairs=90)
        cost = SimpleNamespace(
            ratio_to_plain=1.123, ratio_to_one_at_a_time=None, quality=quality, advice="a larger --proj-dim"
        )
        return verdict(cost)  # type: ignore[arg-type]

    assert said(0.11) == "Features cost 1.12 × the plain pass; the projection is as good as a dense one."
    assert said(0.2).endswith("not as good as a dense one: a larger --proj-dim brings its error down.")


def test_an_unknown_name_is_refused_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    message = refused(1, *bench("--model", "random-gema-2b"))
    assert "`random-gema-2b` is neither a local folder" in message
    assert "tiny-llama-15m, random-gemma-2b, random-qwen3-4b, random-llama-2-7b" in message
    assert "hint: --model random-gemma-2b" in message


def test_lengths_beyond_the_context_are_refused(small_model: Path) -> None:
    message = refused(2, *bench("--model", small_model, "--prompt-tokens", 250, "--response-tokens", 7))
    assert "250 + 7 tokens do not fit the model's context of 256" in message
    assert "hint: --prompt-tokens 249 --response-tokens 7" in message
    assert "context of 4096" in refused(2, *bench("--model", "random-llama-2-7b", "--prompt-tokens", 4096))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--lora-modules", "query"), 2, "no layer `query`"),
        (("--projection", "dens"), 2, "did you mean `dense`"),
        (("--dtype", "int4"), 2, "model.dtype"),
        (("--device", "cuda:99"), 2, "cuda:99"),
        (("--proj-dim", 0), 2, "featurize.proj_dim"),
    ],
)
def test_wrong_words_are_refused(words: tuple[object, ...], code: int, said: str, small_model: Path) -> None:
    assert said in refused(code, *bench("--model", small_model, *words))


def test_an_adapter_folder_is_no_model_to_measure(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "is a LoRA adapter" in refused(4, *bench("--model", tmp_path))


def test_the_group_lists_what_it_has_and_help_names_the_architectures() -> None:
    from activedpo_cli.models.random_models import ARCHITECTURES

    assert re.search(r"featurize  +Time and memory", activedpo("bench", "--help").stdout)
    from typer.main import get_command

    from activedpo_cli.cli.app import app

    command = get_command(app).get_command(None, "bench").commands["featurize"]  # type: ignore[attr-defined]
    (model,) = [parameter for parameter in command.params if parameter.name == "model"]
    assert all(name in model.help for name in ARCHITECTURES)


@pytest.mark.whole
def test_it_runs_where_only_model_libraries_are(small_model: Path) -> None:
    words = [str(word) for word in bench("--model", small_model, "--json")]
    ended = subprocess.run([sys.executable, "-c", THIN, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["ratio_to_plain"] > 0
