"""How settings travel: from flags into `config.yaml`, from there into stages to come, never into finished ones."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command_line import RULE, activedpo, done, make_partial, manifest, on, outputs, refused, snapshot, without
from small_runs import small_run


def comments(run: Path) -> list[str]:
    return re.findall(r"#.*", (run / "config.yaml").read_text())


def edit_config(run: Path, old: str, new: str) -> None:
    path = run / "config.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_every_setting_is_written_out_with_its_meaning(new_run: Path) -> None:
    text = (new_run / "config.yaml").read_text()
    assert re.search(r"^  top_k: 0  # sample among the k likeliest tokens", text, re.MULTILINE)
    assert re.search(r"^  num_prompts: 6  # ", text, re.MULTILINE)
    assert re.search(r"^seed: 0  # ", text, re.MULTILINE)


def test_a_flag_is_kept_and_inherited(finished: Path) -> None:
    before = comments(finished)
    done(*on(finished, "generate", iteration=3), "--top-p", "0.9", "--stop-token-ids", "1,2")
    text = (finished / "config.yaml").read_text()
    assert re.search(r"^  top_p: 0\.9  # nucleus sampling mass", text, re.MULTILINE)
    assert re.search(r"^  stop_token_ids: \[1, 2\]\s+# further", text, re.MULTILINE)
    assert comments(finished) == before
    assert manifest(finished, 3, "generate")["settings"]["generate.top_p"] == 0.9
    for stage in ("featurize", "select", "label", "train"):
        done(*on(finished, stage), "--quiet")
    done(*on(finished, "generate", iteration=4))
    settings = manifest(finished, 4, "generate")["settings"]
    assert (settings["generate.top_p"], settings["generate.stop_token_ids"]) == (0.9, [1, 2])


def test_a_ridge_is_a_setting_of_the_method(finished: Path) -> None:
    done(*on(finished, "select", iteration=2), "--force", "--ridge", "7")
    assert manifest(finished, 2, "select")["settings"]["select.methods.activedpo.ridge"] == 7
    assert re.search(r"methods: \{activedpo: \{ridge: 7", (finished / "config.yaml").read_text())
    assert "up to date" in done(*on(finished, "select", iteration=2)).stderr


def test_a_flag_the_method_does_not_use_warns(finished: Path) -> None:
    result = done(*on(finished, "select", iteration=2), "--force", "--method", "random", "--ridge", "7")
    assert "warning: --ridge is ignored" in result.stderr
    assert "ridge: 7" not in (finished / "config.yaml").read_text()
    result = done(*on(finished, "select", iteration=2), "--set", "select.methods.activedpo.ridge=0")
    assert "`select.methods.activedpo.ridge` is not used: the method is `random`" in result.stderr


def test_an_unknown_setting_of_a_method_is_told_with_those_there_are(finished: Path) -> None:
    words = on(finished, "select", iteration=2)
    said = refused(2, *words, "--force", "--method", "aplp", "--set", "select.methods.aplp.over-generat=3")
    assert "select.methods.aplp.over_generat  unknown setting — did you mean `over_generate`?" in said
    assert "known: select.methods.aplp.over_generate" in said
    said = refused(2, *words, "--force", "--method", "k-center", "--set", "select.methods.k-center.ridge=3")
    assert "method `k-center` has no such setting" in said


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "--num-prompts", "1000", "--temperature", "0.3"),
        ("generate", "--max-new-tokens", "250", "--top-k", "5"),
        ("generate", "--temperature", "-1"),
        ("generate", "--set", "train.learning_rate=1e39"),
        ("generate", "--set", "generate.temperatur=0.3"),
        ("featurize", "--proj-dim", "32"),
    ],
)
def test_a_failed_command_leaves_nothing_behind(new_run: Path, words: tuple[str, ...]) -> None:
    before = {name: digest for name, (digest, _) in snapshot(new_run).items()}
    refused(2 if "-1" in words or "--set" in words else 4, *on(new_run, *words))
    assert {name: digest for name, (digest, _) in snapshot(new_run).items()} == before
    assert not (new_run / "iter-001").exists()


@pytest.mark.parametrize(
    ("stage", "wrong", "right"),
    [
        ("label", ("--oracle", "python:letter_rule:scor"), ("--oracle", RULE)),
        ("evaluate", ("--scorer", "python:letter_rule:scor"), ("--scorer", RULE)),
        ("train", ("--learning-rate", "1e30", "--epochs", "3"), ("--learning-rate", "1e-3")),
    ],
)
def test_a_setting_that_fails_at_work_can_be_corrected(
    finished: Path, stage: str, wrong: tuple[str, ...], right: tuple[str, ...]
) -> None:
    """No --force and no deleting by hand: the wrong value has left no trace that could refuse the right one."""
    shutil.rmtree(finished / "iter-002" / stage)
    shutil.rmtree(finished / "reference" / "evaluate")
    config = (finished / "config.yaml").read_bytes()
    code = 2 if stage != "train" else 1
    refused(code, *on(finished, stage, iteration=2), *wrong)
    assert (finished / "config.yaml").read_bytes() == config
    assert not (finished / "iter-002" / stage).exists()
    done(*on(finished, stage, iteration=2), *right)


def test_files_without_a_record_are_not_continued(finished: Path) -> None:
    """Units of unknown settings must not be mixed with new ones, nor be lost."""
    folder = finished / "iter-002" / "generate"
    (folder / "manifest.json").unlink()
    unit = (folder / "responses-00000.jsonl").read_bytes()
    result = done(*on(finished, "generate", iteration=2), "--temperature", "0.2")
    assert "no intact record" in result.stderr
    assert (folder / "responses-00000.jsonl").read_bytes() != unit
    (kept,) = (finished / ".stale").glob("iter-002-generate-*")
    assert (kept / "responses-00000.jsonl").read_bytes() == unit


def test_a_hand_edited_config_changes_only_stages_to_come(finished: Path) -> None:
    edit_config(finished, "  beta: 0.1 ", "  beta: 0.25 ")
    before = snapshot(finished)
    assert "up to date" in done(*on(finished, "train", iteration=2)).stderr
    assert "up to date" in done(*on(finished, "evaluate", iteration=2)).stderr
    status = done(*on(finished, "status")).stdout
    assert "train iter-002: train.beta was 0.1, `config.yaml` now says 0.25" in status
    assert "stale" not in status
    assert snapshot(finished) == before


def test_status_of_an_unchanged_run_has_nothing_to_say(finished: Path) -> None:
    found = json.loads(done(*on(finished, "status"), "--json").stdout)
    states = [status for row in found["iterations"] for status in row["stages"].values()]
    assert {status["state"] for status in states} == {"complete"}
    assert [status["notes"] for status in states] == [[]] * 12
    assert [row["iteration"] for row in found["evaluations"]] == [0, 1, 2]
    assert found["labels_spent"] == 8
    assert found["next"].endswith("--iteration 3")


def test_an_interrupted_stage_goes_on_with_its_own_settings(finished: Path) -> None:
    expected = outputs(finished, 2, "train")
    make_partial(finished, 2, "train", "adapter", "metrics.jsonl")
    edit_config(finished, "  beta: 0.1 ", "  beta: 0.25 ")
    done(*on(finished, "train", iteration=2))
    assert outputs(finished, 2, "train") == expected


def test_the_adapter_is_fixed_once_it_is_made(finished: Path) -> None:
    before = snapshot(finished)
    assert "adapter.r  2 → 4" in refused(3, *on(finished, "featurize", iteration=2), "--lora-r", 4)
    assert "adapter.r  2 → 4" in refused(3, *on(finished, "featurize", iteration=2), "--lora-r", 4, "--force")
    message = refused(3, *on(finished, "train", iteration=2), "--lora-alpha", 3, "--force")
    assert "adapter.lora_alpha  8.0 → 3.0" in message
    assert snapshot(finished) == before
    edit_config(finished, "  r: 2 ", "  r: 4 ")
    assert "up to date" in done(*on(finished, "featurize", iteration=2)).stderr
    assert "adapter.r  2 → 4" in refused(3, *on(finished, "featurize", iteration=2), "--force")


@pytest.mark.parametrize(
    ("flag", "key"), [("--model", "model.name"), ("--seed", "seed"), ("--prompts", "prompts.source")]
)
def test_what_was_fixed_with_the_run_is_refused(new_run: Path, flag: str, key: str) -> None:
    before = snapshot(new_run)
    message = refused(3, *on(new_run, "generate"), flag, {"--seed": "7"}.get(flag, "elsewhere"))
    assert f"{key}  " in message
    assert snapshot(new_run) == before


def test_init_again(new_run: Path, small_model: Path, prompts_file: Path) -> None:
    before = snapshot(new_run)
    again = ("--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4)
    assert "up to date" in done(*on(new_run, "init"), *again).stderr
    assert "up to date" in done(*on(new_run, "init")).stderr
    for flags, line in [
        (("--eval-prompts", 5), "prompts.eval_prompts  4 → 5"),
        (("--seed", 3), "seed  0 → 3"),
        (("--model", "tiny"), "model.name"),
        (("--set", "select.budget=9"), "select.budget  4 → 9"),
        (("--preset", "tiny"), "preset  paper → tiny"),
    ]:
        assert line in refused(3, *on(new_run, "init"), *flags)
    assert snapshot(new_run) == before


def test_a_prompts_file_that_changed_is_noticed(new_run: Path, prompts_file: Path) -> None:
    copy = new_run.parent / "prompts.jsonl"
    copy.write_text(prompts_file.read_text())
    other = new_run.parent / "other"
    done(*on(other, "init"), "--prompts", copy, "--model", "tiny", "--eval-prompts", 2)
    copy.write_text(prompts_file.read_text() + '{"prompt": "one more"}\n')
    assert "has changed" in refused(3, *on(other, "init"), "--prompts", copy)


def test_a_stage_makes_the_run_and_takes_it_back_when_it_fails(tmp_path: Path) -> None:
    run = tmp_path / "fresh"
    small = ("--num-prompts", 2, "--max-new-tokens", 3, "--eval-prompts", 3)
    refused(4, *on(run, "generate"), "--num-prompts", 100000)
    assert not run.exists()
    done(*on(run, "generate"), *small)
    assert manifest(run, 1, "generate")["settings"]["generate.num_prompts"] == 2
    assert without(snapshot(run), "iter-001").keys() >= {"config.yaml", "run.json", "prompts.jsonl"}


def test_a_rank_without_an_alpha_is_told_of(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    """LoRA multiplies its update by α/r: 512/8 is 64, where the paper has 512/128."""
    words = ("init", "--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4)
    told = done(*words, "--run", tmp_path / "a", "--set", "adapter.r=8").stderr
    assert "updates are multiplied by 64; the paper's 4 would be --lora-alpha 32" in " ".join(told.split())
    for name, more in (("b", ("--set", "adapter.lora_alpha=32")), ("c", ())):
        rank = ("--set", "adapter.r=8") if more else ()
        assert "multiplied" not in done(*words, "--run", tmp_path / name, *rank, *more).stderr
    later = activedpo(*on(tmp_path / "c", "featurize"), "--lora-r", 16).stderr
    assert "updates are multiplied by 32; the paper's 4 would be --lora-alpha 64" in " ".join(later.split())


def test_rank_stabilized_updates_are_a_setting_of_the_adapter(
    tmp_path: Path, small_model: Path, prompts_file: Path
) -> None:
    """It is PEFT's own field of the adapter, is told with its factor, and is fixed with the adapter."""
    run = small_run(tmp_path / "run", small_model, prompts_file)
    done(*on(run, "generate"), "--quiet")
    done(*on(run, "featurize"), "--quiet", "--set", "adapter.use_rslora=true")
    [stored] = run.glob("reference/**/adapter_config.json")
    assert json.loads(stored.read_text())["use_rslora"] is True
    assert manifest(run, 1, "featurize")["settings"]["adapter.use_rslora"] is True
    refusal = refused(3, *on(run, "featurize", iteration=1), "--force", "--set", "adapter.use_rslora=false")
    assert "adapter.use_rslora  True" in refusal
    words = (
        "--model",
        small_model,
        "--prompts",
        prompts_file,
        "--set",
        "adapter.r=16",
        "--set",
        "adapter.use_rslora=true",
    )
    told = " ".join(done("init", "--run", tmp_path / "told", "--eval-prompts", 4, *words).stderr.split())
    assert "multiplies updates by 128, lora_alpha / √r; the paper's 4 would be --lora-alpha 16" in told
