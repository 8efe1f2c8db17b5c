"""What is wrong is said in one sentence that names it, with the right exit code, and nothing is lost."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import RULE, STAGES, activedpo, done, list_again, make_partial, manifest, on, refused, rows, snapshot
from safetensors.torch import load_file, save_file


def with_prompts(tmp_path: Path, model: Path, content: bytes, *more: object) -> tuple[object, ...]:
    path = tmp_path / "given.jsonl"
    path.write_bytes(content)
    return (*on(tmp_path / "run", "init"), "--model", model, "--prompts", path, "--eval-prompts", 1, *more)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"prompt": "a"}\n{"prompt": "b"\n{"prompt": "c"}\n', "given.jsonl line 2"),
        (b'{"prompt": "a"}\n{"prompt": "\xff\xfe"}\n', "given.jsonl line 2"),
        (b'{"prompt": "a"}\n{"prompt": "  "}\n', "given.jsonl line 2"),
        (b'{"prompt": "a"}\n{"question": "b"}\n', "prompt"),
        (b'{"prompt": "a"}\n[1, 2]\n', "given.jsonl line 2"),
        (b'{"prompt": "a"}\n{"prompt": 3}\n', "given.jsonl line 2"),
        (b"", "given.jsonl"),
        (b'{"prompt": "a"}\n', "too few to hold out 1"),
    ],
)
def test_prompts_that_cannot_be_read(tmp_path: Path, small_model: Path, content: bytes, named: str) -> None:
    message = refused(4, *with_prompts(tmp_path, small_model, content))
    assert named in message
    assert not (tmp_path / "run").exists()


def test_a_missing_prompts_file(tmp_path: Path, small_model: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("{}")
    message = refused(4, *on(tmp_path / "run", "init"), "--model", small_model, "--prompts", tmp_path / "promts.jsonl")
    assert "promts.jsonl" in message
    assert f"did you mean `{tmp_path}/prompts.jsonl`" in message


def test_repeated_prompts_warn_or_fail(tmp_path: Path, small_model: Path) -> None:
    content = b'{"prompt": "a"}\n{"prompt": "b"}\n{"prompt": "a"}\n'
    message = refused(4, *with_prompts(tmp_path, small_model, content, "--set", "prompts.duplicates=error"))
    assert "given.jsonl line 3 repeats the prompt of given.jsonl line 1" in message
    result = done(*with_prompts(tmp_path, small_model, content))
    said = " ".join(result.stderr.split())
    assert (
        "warning: 1 row repeats the prompt of an earlier one (given.jsonl line 3): a prompt is in the run once" in said
    )


def test_rows_of_several_responses_to_a_prompt_lose_nothing_and_are_no_warning(
    tmp_path: Path, small_model: Path
) -> None:
    path = tmp_path / "given.csv"
    path.write_text("prompt,response\na,x\na,y\nb,x\nb,z\n")
    words = ("--model", small_model, "--prompts", path, "--eval-prompts", 0, "--num-prompts", 2, "--responses", path)
    said = " ".join(done(*on(tmp_path / "run", "generate"), *words).stderr.split())
    assert "2 rows repeat the prompt of an earlier one (given.csv line 3, given.csv line 5)" in said
    assert "with the responses of all its rows" in said
    assert "warning" not in said
    assert len(rows(tmp_path / "run" / "pool" / "responses.jsonl")) == 4


def test_prompts_too_long_for_the_model(tmp_path: Path, small_model: Path) -> None:
    content = b"".join(json.dumps({"prompt": word * 100}).encode() + b"\n" for word in ("abc", "def", "g", "h"))
    done(*with_prompts(tmp_path, small_model, content, "--set", "seed=1"))
    run = tmp_path / "run"
    message = refused(4, *on(run, "generate"), "--num-prompts", 3, "--max-new-tokens", 4)
    assert "exceed the model's context" in message
    assert "--num-prompts" in message
    assert not (run / "iter-001").exists()
    result = done(*on(run, "generate"), "--num-prompts", 1, "--max-new-tokens", 4)
    assert len(manifest(run, 1, "generate")["summary"]) > 1
    assert result.exit_code == 0


def test_a_model_that_is_not_there(tmp_path: Path, prompts_file: Path) -> None:
    message = refused(4, *on(tmp_path / "run", "init"), "--model", tmp_path / "nowhere", "--prompts", prompts_file)
    assert f"there is no model folder `{tmp_path}/nowhere`" in message
    (tmp_path / "empty").mkdir()
    message = refused(4, *on(tmp_path / "run", "init"), "--model", tmp_path / "empty", "--prompts", prompts_file)
    assert "config.json" in message
    assert not (tmp_path / "run").exists()


def test_a_model_that_has_changed_since(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    model = Path(shutil.copytree(small_model, tmp_path / "model"))
    run = tmp_path / "run"
    done(*on(run, "init"), "--model", model, "--prompts", prompts_file, "--eval-prompts", 4)
    tensors = load_file(model / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, model / "model.safetensors", {"format": "pt"})
    message = refused(3, *on(run, "generate"), "--num-prompts", 2, "--max-new-tokens", 3)
    assert "model" in message


@pytest.mark.parametrize("name", ["a/../b c", "-x", "näme", "x" * 65])
def test_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is not a name for a run" in refused(2, "status", f"--run={name}")


def test_no_run(tmp_path: Path) -> None:
    message = refused(4, "status", "--run", tmp_path / "none")
    assert f"there is no run in `{tmp_path}/none`" in message
    (tmp_path / "nine").mkdir()
    (tmp_path / "nine" / "run.json").touch()
    assert f"did you mean `{tmp_path}/nine`?" in refused(4, *on(tmp_path / "nin", "status"))
    assert "activedpo init" in message


def test_a_folder_that_is_no_run(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    (tmp_path / "thesis.txt").write_text("work")
    message = refused(2, *on(tmp_path, "init"), "--model", small_model, "--prompts", prompts_file)
    assert "exists and is not a run" in message
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["thesis.txt"]


def test_a_link_that_leads_nowhere(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    words = (*on(tmp_path / "run", "init"), "--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4)
    message = refused(2, *words)
    assert f"`{tmp_path}/run` is a link to `{tmp_path}/elsewhere`, where nothing is" in message
    assert (tmp_path / "run").is_symlink()
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("select", "--method", "activdpo"), "did you mean `activedpo`"),
        (("select", "--set", "select.budgt=3"), "did you mean `select.budget`"),
        (("select", "--set", "selct.budget=3"), "did you mean `select.budget`"),
        (("select", "--set", "select.methods.activedpo.rigde=3"), "rigde"),
        (("label", "--oracle", "pyton:a:b"), "did you mean `python`"),
        (("label", "--oracle", "python:no_such_module:score"), "no_such_module"),
        (("featurize", "--set", "featurize.projection=gausian"), "gausian"),
        (("ls", "methodes"), "methodes"),
        (("generate", "--set", "nothing"), "key=value"),
    ],
)
def test_names_that_do_not_exist(finished: Path, words: tuple[str, ...], meant: str) -> None:
    before = {name: digest for name, (digest, _) in snapshot(finished).items()}
    where = () if words[0] == "ls" else ("--run", finished, "--iteration", 2)
    force = () if words[0] == "ls" else ("--force",)
    assert meant in refused(2, *words, *where, *force)
    assert {name: digest for name, (digest, _) in snapshot(finished).items()} == before


def test_every_problem_of_the_settings_at_once(new_run: Path) -> None:
    path = new_run / "config.yaml"
    text = path.read_text().replace("  budget: 4 ", "  budget: -4 ").replace("  beta: 0.1 ", "  betta: 0.1 ")
    path.write_text(text.replace("  top_k: 0 ", "  top_k: many ", 1))
    message = refused(2, *on(new_run, "generate"))
    assert "3 problems" in message
    assert "select.budget  -4" in message
    assert "train.betta  unknown setting — did you mean `train.beta`?" in message
    assert "generate.top_k  'many'" in message
    path.write_text("seed: [\n")
    assert "not valid YAML" in refused(2, *on(new_run, "generate"))
    path.write_bytes(b"seed: \xff\n")
    assert "config.yaml" in refused(4, *on(new_run, "generate"))


def test_a_budget_larger_than_the_pool(finished: Path) -> None:
    before = snapshot(finished)
    message = refused(4, *on(finished, "select", iteration=2), "--force", "--budget", 1000)
    assert "select.budget is 1000, but only" in message
    assert snapshot(finished) == before


def test_no_space_for_the_features(finished: Path) -> None:
    before = snapshot(finished)
    message = refused(1, *on(finished, "featurize", iteration=2), "--force", "--proj-dim", 10**12)
    assert "GB are free" in message
    assert snapshot(finished) == before


def test_features_of_kilobytes_need_no_more_than_kilobytes(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activedpo_cli.features.step.free_bytes", lambda path: 200_000)
    done(*on(finished, "featurize", iteration=2), "--force", "--quiet")
    monkeypatch.setattr("activedpo_cli.features.step.free_bytes", lambda path: 60_000)
    assert "0.1 MB are free" in refused(1, *on(finished, "featurize", iteration=2), "--force")


def test_weights_that_are_not_numbers(finished: Path) -> None:
    shutil.rmtree(finished / "iter-002")
    path = finished / "iter-001" / "train" / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[next(iter(tensors))][0, 0] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    list_again(finished, 1, "train")
    message = refused(4, *on(finished, "generate", iteration=2))
    assert "iter-001/train/adapter" in message
    assert not (finished / "iter-002").exists()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "is not valid JSON"), (b"[]", "is damaged"), (b'{"schema": 99}', "newer version"), (b"{}", "is damaged")],
)
def test_a_damaged_manifest(finished: Path, stage: str, content: bytes, said: str) -> None:
    (finished / "iter-002" / stage / "manifest.json").write_bytes(content)
    before = snapshot(finished)
    message = refused(4, *on(finished, stage, iteration=2))
    assert f"iter-002/{stage}/manifest.json" in message
    assert said in message
    assert "damaged" in done(*on(finished, "status")).stdout
    assert snapshot(finished) == before
    if stage == "select":
        done(*on(finished, stage, iteration=2), "--force")
        (kept,) = (finished / ".stale").glob("iter-002-select-*")
        assert (kept / "manifest.json").read_bytes() == content


@pytest.mark.parametrize("finished_stage", [True, False])
def test_features_that_were_cut(finished: Path, finished_stage: bool) -> None:
    path = finished / "iter-002" / "featurize" / "features-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    if finished_stage:
        message = refused(4, *on(finished, "featurize", iteration=2))
        assert "features-00001.safetensors" in message
        assert "--force" in message
    make_partial(finished, 2, "select")
    shutil.rmtree(finished / "iter-002" / "select")
    message = refused(4, *on(finished, "select", iteration=2))
    assert "features-00001.safetensors" in message
    assert not (finished / "iter-002" / "select").exists()


def test_a_row_that_is_not_one(finished: Path) -> None:
    path = finished / "iter-002" / "generate" / "responses-00001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b'{"response_id": 3}\n'
    path.write_bytes(b"".join(lines))
    shutil.rmtree(finished / "iter-002" / "featurize")
    list_again(finished, 2, "generate")
    assert "responses-00001.jsonl` line 3" in refused(4, *on(finished, "featurize", iteration=2))


def test_an_oracle_that_fails(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad_oracle.py").write_text(
        "def score(prompts, responses):\n    return [float('nan')] * len(prompts)\n"
    )
    message = refused(4, *on(finished, "label", iteration=2), "--force", "--oracle", "python:bad_oracle:score")
    assert "nan" in message
    assert "up to date" in done(*on(finished, "label", iteration=2), "--oracle", RULE).stderr


def test_options_that_do_not_exist_are_usage_errors(finished: Path) -> None:
    assert activedpo(*on(finished, "generate"), "--temprature", 1).exit_code == 2
    assert activedpo("generat").exit_code == 2
    assert activedpo(*on(finished, "generate"), "--iteration", 0).exit_code == 2
    assert activedpo(*on(finished, "label"), "--export", "x.csv", "--oracle", "python:a:b").exit_code in (2, 3)
