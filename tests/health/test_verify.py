"""`verify` names what is wrong, in which file, and a command that makes it right; it changes nothing."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import STAGES, activedpo, all_outputs, done, make_partial, on, outputs, refused, rows, snapshot
from damage import DAMAGES, flipped, holding, repair

from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.health.verify import verify_run
from activedpo_cli.label import step as label
from activedpo_cli.store.run import Run


def problems(run: Path) -> list[dict[str, Any]]:
    """What `verify` finds, by the real command; it must say so by its exit code and leave every file as it is."""
    before = snapshot(run)
    result = activedpo(*on(run, "verify"), "--json", "--quiet")
    assert snapshot(run) == before
    found = json.loads(result.stdout)
    assert result.exit_code == (4 if found["problems"] else 0), result.output
    assert found["sound"] == (not found["problems"])
    return found["problems"]


def only_problem(run: Path) -> dict[str, Any]:
    (found,) = problems(run)
    return found


def written(run: Path) -> list[str]:
    """Every file that commands wrote into a run and that later ones read."""
    paths = [path for path in sorted(run.rglob("*")) if path.is_file() and ".locks" not in path.parts]
    return [path.relative_to(run).as_posix() for path in paths]


def test_a_finished_run_is_sound(whole: Path) -> None:
    before = snapshot(whole)
    result = done(*on(whole, "verify"))
    assert f"{whole} is sound: " in result.stdout
    assert snapshot(whole) == before
    found = json.loads(done(*on(whole, "verify"), "--json").stdout)
    assert found["problems"] == found["notes"] == []
    listed = sum(len(names) for names in all_outputs(whole).values())
    base = len(json.loads((whole / "reference" / "base.json").read_bytes())["files"])
    logs = sum(len(json.loads(path.read_bytes())["logs"]) for path in whole.rglob("manifest.json"))
    assert found["files"] == listed + base + logs + 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_run_is_looked_at(whole: Path, damage: str) -> None:
    """Whatever happens to a file, it is the file that is named; the files are dealt out among the damages."""
    names = [name for name in written(whole) if name != "config.yaml" and "iter-001" not in name]
    names = names[list(DAMAGES).index(damage) :: len(DAMAGES)]
    assert len(names) >= 6
    for name in names:
        path = whole / name
        content = DAMAGES[damage](path.read_bytes())
        if content == path.read_bytes() or (damage == "a bit flipped" and name in UNLISTED):
            continue
        with holding(path, content):
            found = [problem for problem in problems(whole) if problem["file"] == name]
            assert found, f"{name} with {damage} passes for sound"
            assert all(problem["repair"] for problem in found)


UNLISTED = ("loop.json", "reference/base.json", "run.json")
"""Records without a digest: of another number that is as good nothing can be said."""


def test_every_file_of_a_run_is_missed(whole: Path) -> None:
    """In process, with nothing printed: the command line has been tried above."""
    for name in written(whole)[::3]:
        if name in ("run.json", "loop.json") or name.startswith(
            ("reference/evaluate/rewards", "reference/evaluate/met")
        ):
            continue
        path, aside = whole / name, whole / ".locks" / "aside"
        path.rename(aside)
        found = verify_run(Run(whole), SilentProgress())["problems"]
        aside.rename(path)
        assert name in {problem["file"] for problem in found}, name


def test_rewards_and_metrics_of_the_initial_model_are_held_against_each_other(whole: Path) -> None:
    folder = whole / "reference" / "evaluate"
    (rewards,) = folder.glob("rewards-*.jsonl")
    for path in (rewards, folder / "metrics.json"):
        place = next(n for n, byte in enumerate(path.read_bytes()) if byte in b"123456789" and n > 90)
        other = path.read_bytes()
        with holding(path, other[:place] + bytes([other[place] ^ 1]) + other[place + 1 :]):
            found = only_problem(whole)
            assert found["file"].startswith("reference/evaluate/")
    assert problems(whole) == []


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("generate", "responses-00001.jsonl"),
        ("featurize", "features-00002.safetensors"),
        ("select", "scores.safetensors"),
        ("label", "preferences.jsonl"),
        ("train", "adapter/adapter_model.safetensors"),
        ("evaluate", "samples.jsonl"),
    ],
)
def test_the_named_command_repairs_a_stage(whole: Path, stage: str, name: str) -> None:
    """The stage is made again to the same bytes, so nothing after it is stale."""
    expected, path = all_outputs(whole), whole / "iter-002" / stage / name
    answers = (whole / "iter-002" / "label" / "labels.jsonl").read_bytes()
    path.write_bytes(flipped(path.read_bytes(), 4321))
    found = only_problem(whole)
    assert (found["file"], found["kind"]) == (f"iter-002/{stage}/{name}", "changed")
    repair(found["repair"])
    assert problems(whole) == []
    assert all_outputs(whole) == expected
    assert (whole / "iter-002" / "label" / "labels.jsonl").read_bytes() == answers, "no answer is bought twice"


@pytest.mark.parametrize(
    "name",
    [
        "reference/initial-adapter/adapter/adapter_model.safetensors",
        "reference/evaluate/responses-00000.jsonl",
        "reference/evaluate/rewards",
    ],
)
def test_the_named_command_repairs_what_iterations_share(whole: Path, name: str) -> None:
    expected = all_outputs(whole)
    (path,) = whole.glob(f"{name}*")
    path.write_bytes(path.read_bytes()[:-40])
    found = only_problem(whole)
    assert found["file"] == path.relative_to(whole).as_posix()
    repair(found["repair"])
    done(*on(whole, "evaluate", iteration=1), "--force")
    done(*on(whole, "featurize", iteration=1), "--force")
    assert problems(whole) == []
    assert all_outputs(whole) == expected


def test_answers_that_were_torn_or_tampered_with(finished: Path) -> None:
    folder = make_partial(finished, 2, "label", "outcomes.jsonl", "preferences.jsonl")
    log = folder / "labels.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:9])
    for later in ("train", "evaluate"):
        shutil.rmtree(finished / "iter-002" / later)
    found = only_problem(finished)
    assert (found["file"], found["kind"]) == ("iter-002/label/labels.jsonl", "torn")
    repair(found["repair"])
    assert problems(finished) == []
    assert (folder / "labels.torn").read_bytes() == lines[2][:9]

    make_partial(finished, 2, "label")
    log.write_bytes(lines[0] + lines[1].replace(b"chosen", b"tie   ") + lines[2])
    found = only_problem(finished)
    assert found["kind"] == "damaged"
    assert "line 2" in found["what"]
    paid = log.read_bytes()
    assert "line 2 is not an intact label" in refused(4, *on(finished, "label", iteration=2))
    assert log.read_bytes() == paid


def test_rebuilding_needs_the_same_inputs_and_asks_only_for_what_is_missing(finished: Path) -> None:
    expected = outputs(finished, 2, "label")
    log = finished / "iter-002" / "label" / "labels.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]))
    found = only_problem(finished)
    assert (found["file"], found["kind"]) == ("iter-002/label/labels.jsonl", "truncated")
    repair(found["repair"])
    assert outputs(finished, 2, "label") == expected
    assert log.read_bytes().startswith(b"".join(lines[:-1]))
    assert len(rows(log)) == len(lines)
    done(*on(finished, "select", iteration=2), "--force", "--method", "random")
    before = snapshot(finished)
    assert "input iter-002/select" in refused(3, *on(finished, "label", iteration=2), "--rebuild")
    assert snapshot(finished) == before


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_answers_outlive_the_record_of_their_stage(finished: Path, damage: str) -> None:
    """None is bought again, and what is written from them is what was there."""
    expected = all_outputs(finished)
    folder = finished / "iter-002" / "label"
    paid = (folder / "labels.jsonl").read_bytes()
    if damage == "cut":
        (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes()[:-40])
        found = [row for row in problems(finished) if row["file"] == "iter-002/label/manifest.json"]
        command = found[0]["repair"]
        assert "--rebuild" in command
        repair(command)
        assert len(list((finished / ".stale").glob("iter-002-label-*-manifest.json"))) == 1
    else:
        (folder / "manifest.json").unlink()
        told = done(*on(finished, "label", iteration=2), "--rebuild")
        assert "is taken from" in told.stderr
    assert (folder / "labels.jsonl").read_bytes() == paid
    assert all_outputs(finished) == expected
    assert problems(finished) == []


@pytest.mark.parametrize("damage", ["flipped", "torn", "gone"])
def test_answers_come_back_from_the_list_of_outcomes(finished: Path, damage: str) -> None:
    """Whatever becomes of the log of a closed stage, nobody is asked again."""
    expected = all_outputs(finished)
    log = finished / "iter-002" / "label" / "labels.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    if damage == "flipped":
        log.write_bytes(b"".join([lines[0], lines[1].replace(b"chosen", b"tie   "), *lines[2:]]))
    elif damage == "torn":
        log.write_bytes(b"".join(lines)[:-30])
    else:
        log.unlink()
    command = next(row["repair"] for row in problems(finished) if row["file"] == "iter-002/label/labels.jsonl")
    assert command.endswith("--rebuild")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label.judging, "verdicts", None)  # whoever were asked now would not answer
        repair(command)
    assert all_outputs(finished) == expected
    answers = [row["label"] for row in rows(log) if row["event"] == "label"]
    outcomes = rows(finished / "iter-002" / "label" / "outcomes.jsonl")
    assert {row["pair_id"] for row in answers} == {row["pair_id"] for row in outcomes}
    assert len(list((finished / ".stale").glob("*labels.jsonl"))) == (damage == "flipped")


def test_answers_that_are_gone_are_a_problem(finished: Path) -> None:
    shutil.rmtree(finished / "iter-001" / "label")
    assert [row["file"] for row in problems(finished)] == ["iter-001/label/labels.jsonl"]


def test_a_run_without_its_record_is_not_made_anew(finished: Path) -> None:
    (finished / "run.json").unlink()
    before = snapshot(finished)
    for words in (("verify",), ("status",), ("run",), ("init", "--model", "tiny"), ("generate",)):
        told = refused(4, *on(finished, *words))
        assert "run.json` is gone" in told
        assert "leave the folder as it is" in told
    assert snapshot(finished) == before


def test_a_record_edited_by_hand_is_told(finished: Path) -> None:
    path = finished / "run.json"
    path.write_text(path.read_text().replace('"preset": "paper"', '"preset": "tiny"'))
    assert (only_problem(finished)["file"], only_problem(finished)["kind"]) == ("run.json", "changed")


def test_what_can_not_be_rebuilt_is_left_as_it_is(finished: Path) -> None:
    picked = finished / "iter-002" / "select" / "scores.safetensors"
    content = bytearray(picked.read_bytes())
    content[-1] ^= 1
    picked.write_bytes(content)
    before = snapshot(finished)
    assert "scores.safetensors" in refused(4, *on(finished, "label", iteration=2), "--rebuild")
    assert "--force asks again" in refused(2, *on(finished, "label", iteration=2), "--rebuild", "--force")
    assert snapshot(finished) == before


def test_answers_of_another_oracle_are_not_taken_over(finished: Path) -> None:
    (finished / "iter-002" / "label" / "manifest.json").unlink()
    before = snapshot(finished)
    told = refused(3, *on(finished, "label", iteration=2), "--rebuild", "--oracle", "human")
    assert "--oracle python:" in told
    assert snapshot(finished) == before


def test_what_is_unfinished_is_noted_and_no_problem(finished: Path) -> None:
    shutil.rmtree(finished / "iter-001" / "featurize")
    make_partial(finished, 2, "train", "adapter", "metrics.jsonl")
    shutil.rmtree(finished / "iter-002" / "evaluate")
    (finished / "iter-002" / "train" / ".adapter.tmp").mkdir()
    before = snapshot(finished)
    found = json.loads(done(*on(finished, "verify"), "--json").stdout)
    assert snapshot(finished) == before
    assert found["sound"]
    notes = "\n".join(found["notes"])
    assert f"`train` of iteration 2 is not finished; go on with: activedpo train --run {finished}" in notes
    assert "`featurize` of iteration 1 was deleted" in notes
    assert "`iter-002/train/.adapter.tmp` was left by an interrupted writer" in notes


def test_stages_made_from_what_was_made_again_are_stale(finished: Path) -> None:
    done(*on(finished, "generate", iteration=2), "--force", "--temperature", 0.5)
    found = problems(finished)
    assert {(p["file"], p["kind"]) for p in found} == {
        (f"iter-002/{stage}/manifest.json", "stale") for stage in ("featurize", "select", "label", "train")
    }
    for stage in STAGES[1:]:
        done(*on(finished, stage, iteration=2), "--force")
    assert problems(finished) == []


@pytest.mark.usefixtures("blank_figures")
def test_a_report_names_the_files_its_numbers_came_from(finished: Path) -> None:
    done("report", finished)
    assert problems(finished) == []
    facts = json.loads((finished / "report" / "report.json").read_bytes())
    made_of = json.loads((finished / "report" / "manifest.json").read_bytes())["inputs"]
    stages = {f"finished/{row['name']}": row for run in facts["runs"] for row in run["stages"]}
    named = {
        part
        for plot in facts["figures"].values()
        for panel in plot["panels"]
        for series in panel["series"]
        for source in series["sources"]
        for part in source.split(", ")
    }
    assert named
    for name in named:
        row = stages[name]
        listed = json.loads((finished / row["manifest"]).read_bytes())["outputs"]
        text = json.dumps({file: listed[file]["sha256"] for file in sorted(listed)}, separators=(",", ":"))
        assert row["digest"] == f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        of_manifest = hashlib.sha256((finished / row["manifest"]).read_bytes()).hexdigest()
        assert made_of[f"finished: {row['manifest']}"] == of_manifest

    page = finished / "report" / "index.html"
    with holding(page, page.read_bytes().replace(b"1", b"7", 1)):
        found = only_problem(finished)
        assert (found["file"], found["kind"]) == ("report/index.html", "changed")
    done(*on(finished, "evaluate", iteration=2), "--force", "--num-responses", 2, "--set", "evaluate.scorer=null")
    found = only_problem(finished)
    assert (found["file"], found["kind"]) == ("report/manifest.json", "stale")
    assert "`iter-002/evaluate/manifest.json`" in found["what"]
    assert found["repair"] == f"activedpo report {finished} --force"
