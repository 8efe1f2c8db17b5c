"""What a stage would read is damaged, of another run, or newer: it says which file, how to repair it, and does nothing."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import STAGES, activedpo, done, make_partial, on, refused, rows, snapshot
from damage import DAMAGES, flipped, holding
from small_models import save_small_model
from small_runs import small_run

READ_BY = dict(zip(STAGES, STAGES[1:], strict=False))


def listed_outputs(run: Path, stage: str) -> list[str]:
    record = json.loads((run / "iter-002" / stage / "manifest.json").read_bytes())
    return sorted(record["outputs"])


@pytest.mark.parametrize("stage", READ_BY)
def test_one_bit_of_any_output_stops_the_next_stage(whole: Path, stage: str) -> None:
    """No library says a word about most of them."""
    before = snapshot(whole)
    for number, name in enumerate(listed_outputs(whole, stage)):
        path = whole / "iter-002" / stage / name
        with holding(path, flipped(path.read_bytes(), 7919 * (number + 1))):
            message = refused(4, *on(whole, READ_BY[stage], iteration=2), "--force")
            assert f"{name}: its content is not what was written" in message
            remedy = "--rebuild" if stage == "label" else "--force"
            assert f"activedpo {stage} --run {whole} --iteration 2 {remedy}" in message
    assert {name: digest for name, (digest, _) in snapshot(whole).items()} == {
        name: digest for name, (digest, _) in before.items()
    }


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_happens_to_rows_is_named(whole: Path, damage: str) -> None:
    path = whole / "iter-002" / "generate" / "responses-00001.jsonl"
    with holding(path, DAMAGES[damage](path.read_bytes())):
        message = refused(4, *on(whole, "featurize", iteration=2), "--force")
        assert "responses-00001.jsonl: " in message
        if damage == "garbage in the middle":
            assert "line " in message


def test_a_line_of_garbage_is_named_by_its_number(whole: Path) -> None:
    path = whole / "iter-002" / "select" / "selection.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    with holding(path, b"".join([*lines[:2], b"\x00\x1b[31m garbage\n", *lines[2:]])):
        message = refused(4, *on(whole, "label", iteration=2), "--force")
        assert "selection.jsonl: " in message
        assert "line 3 is no whole row" in message
        assert "line 3" in done_with(4, whole)


def done_with(code: int, run: Path) -> str:
    result = activedpo(*on(run, "verify"))
    assert result.exit_code == code
    return result.stdout


def test_files_that_every_stage_relies_on(whole: Path) -> None:
    """The initial adapter, the initial model's responses and the prompts stand in no stage's list of inputs."""
    reference = whole / "reference"
    adapter = reference / "initial-adapter" / "adapter" / "adapter_model.safetensors"
    with holding(adapter, flipped(adapter.read_bytes(), 9999)):
        message = refused(4, *on(whole, "featurize", iteration=1), "--force")
        assert "adapter/adapter_model.safetensors: its content is not what was written" in message
        assert f"rm -r {reference}/initial-adapter" in message
    responses = reference / "evaluate" / "responses-00001.jsonl"
    with holding(responses, responses.read_bytes().replace(b"stop", b"pots", 1)):
        message = refused(4, *on(whole, "evaluate", iteration=2), "--force")
        assert "responses-00001.jsonl: its content is not what was written" in message
    prompts = whole / "prompts.jsonl"
    with holding(prompts, prompts.read_bytes().replace(b"times", b"minus", 1)):
        for stage in STAGES:
            assert "prompts.jsonl` is not the file that this run was made with" in refused(
                4, *on(whole, stage, iteration=2), "--force"
            )
    (rewards,) = (reference / "evaluate").glob("rewards-*.jsonl")
    with holding(rewards, rewards.read_bytes().partition(b"\n")[2]):
        shutil.copytree(whole / "iter-002" / "evaluate", whole / ".stale" / "kept")
        make_partial(whole, 2, "evaluate")
        message = refused(4, *on(whole, "evaluate", iteration=2))
        assert "does not have one reward for each response" in message
        assert f"rm {rewards}" in message
    for path in whole.glob("iter-*/.*.redo"):
        shutil.rmtree(path)
    done(*on(whole, "evaluate", iteration=2))
    assert done_with(0, whole)


def test_a_file_of_another_iteration(whole: Path) -> None:
    """Readers take every file whose name they know."""
    ours, theirs = whole / "iter-002" / "featurize", whole / "iter-001" / "featurize"
    with holding(ours / "features-00001.safetensors", (theirs / "features-00001.safetensors").read_bytes()):
        message = refused(4, *on(whole, "select", iteration=2), "--force")
        assert "features-00001.safetensors: its content is not what was written" in message
    extra = ours / "features-00009.safetensors"
    shutil.copy(theirs / "features-00000.safetensors", extra)
    message = refused(4, *on(whole, "select", iteration=2), "--force")
    assert "features-00009.safetensors: the manifest does not list it" in message
    assert f"mv {extra} {whole}/.stale/" in message
    assert "✗ iter-002/featurize/features-00009.safetensors  unknown" in done_with(4, whole)
    extra.unlink()
    assert done_with(0, whole)


def test_a_folder_of_another_place(finished: Path) -> None:
    shutil.rmtree(finished / "iter-002" / "generate")
    shutil.copytree(finished / "iter-001" / "generate", finished / "iter-002" / "generate")
    message = refused(4, *on(finished, "featurize", iteration=2), "--force")
    assert "iter-002/generate` does not belong there" in message
    assert "it holds `generate` of iteration 1" in message
    assert f"activedpo generate --run {finished} --iteration 2 --force" in message
    assert "foreign: it holds `generate` of iteration 1" in done_with(4, finished)
    assert "input iter-001/train" in refused(3, *on(finished, "generate", iteration=2))
    shutil.rmtree(finished / "iter-002" / "label")
    shutil.copytree(finished / "iter-002" / "select", finished / "iter-002" / "label")
    assert "foreign: it holds `select` of iteration 2" in done_with(4, finished)
    assert refused(4, *on(finished, "label", iteration=2))


def test_a_folder_of_another_run(finished: Path, tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    """Of other prompts, or of a sibling whose settings differ: ids are the same in all of them."""
    other = small_run(tmp_path / "other", small_model, prompts_file, seed=7)
    sibling = small_run(tmp_path / "sibling", small_model, prompts_file, generate__temperature=0.5)
    home = finished / "iter-001" / "generate"
    for run, said, noted in (
        (other, "it was made with other prompts", "foreign: it was made with other prompts"),
        (sibling, "`featurize` of iteration 1 is stale", "stale: it was made from another `iter-001/generate`"),
    ):
        done(*on(run, "generate"))
        shutil.rmtree(home)
        shutil.copytree(run / "iter-001" / "generate", home)
        assert noted in done_with(4, finished)
        for stage in ("featurize", "select"):
            message = (
                refused(4, *on(finished, stage, iteration=1), *(() if stage == "select" else ("--force",)))
                if (stage == "select" or run is other)
                else refused(3, *on(finished, stage, iteration=1))
            )
            assert said in message or "input iter-001/generate" in message


def test_a_model_with_another_tokenizer(tmp_path: Path, prompts_file: Path) -> None:
    """Of equal size and a valid one: nothing else would notice that the same text has become other tokens."""
    model = save_small_model(tmp_path / "model")
    run = small_run(tmp_path / "run", model, prompts_file)
    done(*on(run, "generate"))
    path = model / "tokenizer.json"
    text = path.read_bytes()
    first, second = b'"a": 97', b'"b": 98'
    names = json.loads(text)["model"]["vocab"]
    assert len(names) > 200
    swapped = text.replace(b'"A"', b'"\x01"', 1).replace(b'"\x01"', b'"B"', 1) if first not in text else text
    if first in text:
        swapped = text.replace(first, b'"a": 98').replace(second, b'"b": 97')
    assert swapped != text
    with holding(path, swapped):
        before = snapshot(run)
        message = refused(3, *on(run, "featurize"))
        assert "changed or missing: tokenizer.json" in message
        assert "tokenizer.json  changed" in done_with(4, run)
        assert snapshot(run) == before
    assert done_with(0, run)


def test_weights_that_a_run_holds_itself(tmp_path: Path) -> None:
    run = tmp_path / "built-in"
    done(*on(run, "init"), "--quiet")
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        path = run / "reference" / "model" / name
        with holding(path, flipped(path.read_bytes(), 54321)):
            message = refused(3, *on(run, "generate"))
            assert f"changed or missing: {name}" in message
            assert f"reference/model/{name}  changed" in done_with(4, run)
    assert not (run / "iter-001").exists()


@pytest.mark.parametrize("name", ["run.json", "iter-002/train/manifest.json", "iter-002/label/started.json"])
def test_a_newer_version_wrote_it(finished: Path, name: str) -> None:
    if name.endswith("started.json"):
        make_partial(finished, 2, "label")
    path = finished / name
    record = json.loads(path.read_bytes())
    path.write_text(json.dumps({**record, "schema": 2, "of_the_future": True}, indent=2) + "\n")
    before = snapshot(finished)
    stage = "label" if name.endswith("started.json") else "train"
    for words in (on(finished, stage, iteration=2), on(finished, "evaluate", iteration=2)):
        if stage == "train" or words[0] == "label":
            message = refused(4, *words)
            assert "written by a newer version of activedpo (schema 2" in message
            assert "pip install --upgrade activedpo-cli" in message
    text = done_with(4, finished)
    assert f"✗ {name}  damaged: " in text
    assert "repair: update with `pip install --upgrade activedpo-cli`" in text
    assert snapshot(finished) == before


def test_settings_that_were_cut_off_or_edited(finished: Path) -> None:
    path = finished / "config.yaml"
    text = path.read_text()
    with holding(path, text[: text.index("\ntrain:") + 1].encode()):
        before = snapshot(finished)
        message = refused(4, *on(finished, "generate", iteration=3))
        assert "config.yaml` has lost" in message
        assert "not named there: train.beta, " in message or "train." in message
        assert "✗ config.yaml  damaged: " in done_with(4, finished)
        assert snapshot(finished) == before
    with holding(path, text.replace("seed: 0", "seed: 5", 1).encode()):
        assert "seed  0 → 5" in refused(3, *on(finished, "generate", iteration=3))
        assert "seed  0 → 5" in done_with(4, finished)
    edited = text.replace("  budget: 4 ", "  budget: 3 ", 1)
    assert edited != text
    with holding(path, edited.encode()):
        assert done_with(0, finished)
        assert "up to date" in done(*on(finished, "select", iteration=2)).stderr


@pytest.mark.parametrize("content", [b"[]\n", b"{}\n", b"null\n", b"7\n"])
def test_looking_at_a_file_that_holds_something_else(whole: Path, content: bytes) -> None:
    """JSON it is, and still not what is looked for; `activedpo` itself sees to it that no traceback comes."""
    pair = rows(whole / "iter-002" / "select" / "selection.jsonl")[0]["pair_id"]
    for name, words in (
        ("reference/evaluate/metrics.json", ("status",)),
        ("iter-002/generate/prompts.json", ("show", pair, "--no-tokens")),
    ):
        with holding(whole / name, content):
            assert f"{name}` is damaged" in refused(4, *on(whole, *words))
            assert name in done_with(4, whole)


def test_only_force_replaces_what_is_damaged_and_it_is_kept(finished: Path) -> None:
    path = finished / "iter-002" / "select" / "selection.jsonl"
    damaged = path.read_bytes()[:-30]
    path.write_bytes(damaged)
    before = snapshot(finished)
    for _ in range(2):
        assert "selection.jsonl" in refused(4, *on(finished, "select", iteration=2))
    assert snapshot(finished) == before
    done(*on(finished, "select", iteration=2), "--force")
    (kept,) = (finished / ".stale").glob("iter-002-select-*")
    assert (kept / "selection.jsonl").read_bytes() == damaged
    assert len(rows(path)) == 4
    assert done_with(0, finished)
