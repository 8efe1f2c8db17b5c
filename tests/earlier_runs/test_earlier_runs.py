"""Runs that an earlier version made are read, looked at, continued, and come out the same when they are made again.

`make.py` says what the archives hold and how they were made. Nothing here knows a module of the package: everything goes
through the command line, and through the files that `docs/artifacts.md` describes.
"""

import json
import math
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import STAGES, activedpo, all_outputs, done, rows, snapshot
from make import made_with
from report_page import draw_quickly
from safetensors.numpy import load_file

HERE = Path(__file__).parent
ARCHIVES = sorted(path.stem for path in HERE.glob("*.json"))

METHODS_SECTION = "settings of a method stand under `select.methods`, so that they can't clash with general ones"
IN_THE_MANIFEST = "what a report was made from, and its files, stand in its manifest.json, as for every other step"
ATTEMPTS = (
    "seconds count all attempts of a stage that was resumed, and a record without `attempts` is said to know the last"
)
CORRECTED_ALONE = (
    "the tables of an experiment say that each measure is corrected by itself, so its report is made once more"
)
PARTS_TOO = "what iterations share, prompts and reports are looked at by `status` too"
TWO_DIGITS = "a number that people read keeps two digits that tell something, so a margin of 0.0012 is no longer 0.00"
ASKED_ONCE = (
    "version 2 of *train* asks the reference once for each pair, so that epochs after the first differ by rounding"
)
SUMMARY_ON_TOP = (
    "pages begin with a summary, headings of figures say what they show, and names stand at the ends of lines: version 2 of "
    "the report and 3 of that of an experiment make them once more"
)
STANDING_ANSWERS = "of begun labelling `status` says how many answers stand, not how many lines their log has"
CHANGED_ON_PURPOSE: dict[str, str] = {
    "*: status *: iterations/*/stages/label/headline": STANDING_ANSWERS,
    "*: show *: answers*": "`show` did not name what each person said of a pair",
    "*: status *: iterations/*/stages/train/headline": TWO_DIGITS,
    "built-in: runs/*/train/adapter/adapter_model.safetensors": ASKED_ONCE,
    "built-in: runs/tiny/iter-004/evaluate/metrics.json": ASKED_ONCE,
    "built-in: runs/tiny/iter-004/evaluate/samples.jsonl": ASKED_ONCE,
    "*: compare *: given/select.*": METHODS_SECTION,
    "*: report *: runs/*/settings/select.*": METHODS_SECTION,
    "*: status *: damaged": PARTS_TOO,
    "*: report *: inputs/*": IN_THE_MANIFEST,
    "*: report *: outputs/*": IN_THE_MANIFEST,
    "*: report *: runs/*/agreement*": "reports did not say how far the people who label agree",
    "*: report *: figures/cost/caption": ATTEMPTS,
    "*: report *: figures/*/message": SUMMARY_ON_TOP,
    "*: report *: figures/score-decay/caption": SUMMARY_ON_TOP,
    "*: report *: summary/*": SUMMARY_ON_TOP,
    "*: again: runs/*/report*/*": SUMMARY_ON_TOP,
    "*: report *: runs/*/stages/*/attempts": ATTEMPTS,
    "experiment: again: runs/*/summary.json": CORRECTED_ALONE,
    "experiment: again: runs/*/tables.md": CORRECTED_ALONE,
    "experiment: again: runs/*/index.html": CORRECTED_ALONE,
    "experiment: again: runs/*/.report/*": CORRECTED_ALONE,
    "experiment: again: runs/*/figures/*": "the archive left the figures out",
}
"""What later versions say or make otherwise, and why: a pattern of a place → the reason.

A place is `ARCHIVE: WORDS: FIELD`, a field of what a command prints as JSON, such as `tuned: status --run runs/tuned
--json: sft/state`; or `ARCHIVE: STAGE/FILE`, a file that is made again, such as `pool: runs/pool/pool/responses.jsonl`.
A star stands for anything, slashes and colons too.
"""
NEVER_THE_SAME = {
    "*: *: activedpo_cli": "the version",
    "experiment: *: tables_digest": "of tables in which times are too",
    "*: compare *: methods/*/seconds": "a time",
    "pool: */adapter/adapter_config.json": "names the folder of the model, which lies elsewhere now",
}
FLOATS_DEPEND_ON = ("torch", "machine", "cpu_capability", "threads")
"""What the last bits of floating-point numbers depend on."""


@dataclass(frozen=True)
class Frozen:
    """An archive, unpacked in the current folder, and what was noted beside it."""

    name: str
    record: dict[str, Any]

    @property
    def runs(self) -> list[Path]:
        """The runs, as relative paths."""
        return sorted(path.parent for path in Path().rglob("run.json"))

    @property
    def is_of_this_machine(self) -> bool:
        """Whether floating-point numbers come out here as they did there, to the last bit."""
        return not self.differences_of_machine(*FLOATS_DEPEND_ON)

    def differences_of_machine(self, *names: str) -> list[str]:
        """In what this machine is another one than that on which the archive was made."""
        there, here = self.record["made_with"], made_with()
        return [f"{name} was {there[name]} and is {here[name]}" for name in names if there[name] != here[name]]


@pytest.fixture(scope="session")
def built_in_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy of the built-in model that a run stores, which the archives leave out."""
    run = tmp_path_factory.mktemp("built-in") / "run"
    done("init", "--run", run, "--quiet")
    return run / "reference" / "model"


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where an archive lies unpacked, by its name; read it, never change it."""

    @cache
    def unpack(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        with tarfile.open(HERE / f"{name}.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        return folder

    return unpack


@pytest.fixture
def unpacked(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: Callable[[str], Path]
) -> Frozen:
    """A copy of one archive in a folder of its own, which is the current one."""
    name = request.param
    monkeypatch.chdir(tmp_path)
    shutil.copytree(original(name), tmp_path, dirs_exist_ok=True)
    found = Frozen(name, json.loads((HERE / f"{name}.json").read_bytes()))
    for run in found.runs:
        _put_model_back(run, request)
    return found


def _put_model_back(run: Path, request: pytest.FixtureRequest) -> None:
    """Give a run the built-in model that was left out, or tell it where its model's folder lies now."""
    path = run / "reference" / "base.json"
    text = path.read_text()
    base = json.loads(text)
    if not base["stored_in_run"]:
        path.write_text(text.replace(json.dumps(base["path"]), json.dumps(str(Path(base["name"]).resolve()))))
    elif not (run / base["path"]).exists():
        shutil.copytree(request.getfixturevalue("built_in_model"), run / base["path"])


def each_archive(*left_out: str) -> pytest.MarkDecorator:
    """Parametrise a test by archive."""
    names = [name for name in ARCHIVES if name not in left_out]
    return pytest.mark.parametrize("unpacked", names, indirect=True)


def test_every_archive_is_small() -> None:
    sizes = {path.name: path.stat().st_size for path in HERE.glob("*.tar.xz")}
    assert sorted(sizes) == [f"{name}.tar.xz" for name in ARCHIVES]
    assert sum(sizes.values()) < 1.5e6


@each_archive("files")
def test_looks_say_what_they_said(unpacked: Frozen) -> None:
    before = snapshot(Path())
    for look in unpacked.record["looks"]:
        words = look["words"]
        found = json.loads(done(*words).stdout)
        assert not differing(f"{unpacked.name}: {' '.join(words)}", look["says"], found)
        done(*(word for word in words if word != "--json"))
    assert snapshot(Path()) == before


@each_archive()
@pytest.mark.usefixtures("blank_figures")
def test_finished_work_is_up_to_date(unpacked: Frozen) -> None:
    def unchanged() -> dict[str, Any]:
        files = snapshot(Path())
        return {name: facts for name, facts in files.items() if not _may_differ(f"{unpacked.name}: again: {name}")}

    before = unchanged()
    for words in unpacked.record["again"]:
        result = done(*words)
        if words[0] in ("sft", *STAGES):
            assert "up to date" in result.stderr, words
        assert unchanged() == before, words


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("unpacked", ["built-in"], indirect=True)
def test_comparisons_find_what_they_found(unpacked: Frozen) -> None:
    paths = sorted(Path("runs").glob("*/compare/*/compare.json"))
    assert paths
    for path in paths:
        frozen = json.loads(path.read_bytes())
        given = [word for key, value in frozen["given"].items() for word in ("--set", f"{key}={json.dumps(value)}")]
        words = ("--run", path.parts[1], "--iteration", int(path.parts[3][5:]), "--budget", frozen["budget"], *given)
        done("compare", *words)
        found = json.loads(path.read_bytes())
        assert not differing(f"{unpacked.name}: compare {path}", frozen, found)
        assert (path.parent / "overlap.png").is_file()


@pytest.mark.parametrize("unpacked", ["built-in", "people"], indirect=True)
def test_reports_have_the_same_numbers(unpacked: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of `people` is drawn too; of equal numbers others come out as those of new runs, which `tests/reports` draws."""
    if unpacked.name != "people":
        draw_quickly(monkeypatch)
    for report in unpacked.record["reports"]:
        done(*report["words"])
        frozen, found = (json.loads(Path(report[which]).read_bytes()) for which in ("frozen", "made"))
        assert not differing(f"{unpacked.name}: {' '.join(report['words'])}", frozen, found)
    for run in unpacked.runs:
        done("verify", "--run", run)


@each_archive()
@pytest.mark.usefixtures("blank_figures")
def test_what_was_begun_goes_on(unpacked: Frozen) -> None:
    """Finished runs do a further stage or iteration, begun ones come to their end, with the bytes of the earlier version."""
    for command in unpacked.record["goes_on"]:
        result = activedpo(*command["words"], typed=command["typed"])
        assert result.exit_code == command["code"], f"{command['words']}: {result.output}"
    for name, picks in unpacked.record["chosen"].items():
        assert not differing(f"{unpacked.name}: {name}", picks, rows(Path(name)))
    for run in unpacked.runs:
        done("verify", "--run", run)
        frozen, found = unpacked.record["went_on"].get(run.as_posix(), {}), all_outputs(run)
        for stage, files in frozen.items():
            place = f"{unpacked.name}: {run}/{stage}"
            if unpacked.is_of_this_machine:
                assert not differing(place, files, found[stage], between="/")
            else:
                assert found[stage].keys() == files.keys(), place


@pytest.mark.parametrize("unpacked", ["built-in"], indirect=True)
def test_a_training_begun_by_the_first_version_goes_on_as_that_did(unpacked: Frozen) -> None:
    """To the same bytes, and then counts as finished; by today's version it comes to the same but for rounding."""
    folder, words = Path("runs/tiny/iter-003/train"), ("train", "--run", "runs/tiny", "--iteration", "3")
    record, frozen = json.loads((folder / "manifest.json").read_bytes()), _weights(folder)
    started = {key: record[key] for key in ("schema", "stage", "stage_version", "iteration", "settings", "inputs")}
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "started.json").write_text(json.dumps(started))
    done(*words)
    if unpacked.is_of_this_machine:
        assert json.loads((folder / "manifest.json").read_bytes())["outputs"] == record["outputs"]
    assert "up to date" in done(*words).stderr
    done(*words, "--force")
    assert json.loads((folder / "manifest.json").read_bytes())["stage_version"] == 2
    made = _weights(folder)
    for name, value in frozen.items():
        np.testing.assert_allclose(made[name], value, rtol=0, atol=1e-6)


def _weights(train: Path) -> dict[str, Any]:
    return load_file(train / "adapter" / "adapter_model.safetensors")


@each_archive("files", "begun")
def test_stages_made_again_exactly(unpacked: Frozen) -> None:
    """Labels of machines and the tokens of a pool are the same bytes on any machine, and choices the same pairs.

    Scores of a reward model are those of the machine, and elsewhere the same but for rounding.
    """
    for stage, folder in _finished_stages(unpacked):
        if stage in ("label", "select") or (stage == "generate" and _has_pool(_run_of(folder))):
            frozen, found = _made_again(stage, folder)
            if stage == "select":
                assert _choice(found / folder) == _choice(frozen / folder)
            elif _scored_by_a_model(folder) and not unpacked.is_of_this_machine:
                before, now = (_answers(place / folder) for place in (frozen, found))
                assert before
                assert not differing(f"{unpacked.name}: {folder}", before, now)
            else:
                _check_made_again(unpacked, frozen, found)


@pytest.mark.parametrize(
    "unpacked",
    ["pool", "people", "tuned", *(pytest.param(name, marks=pytest.mark.slow) for name in ("built-in", "experiment"))],
    indirect=True,
)
def test_stages_made_again_to_the_bit(unpacked: Frozen) -> None:
    """All other stages too, where the machine computes as the one did that made the archive."""
    if not unpacked.is_of_this_machine:
        there = unpacked.differences_of_machine(*FLOATS_DEPEND_ON)
        pytest.skip(f"floating-point numbers may come out otherwise here: {'; '.join(there)}")
    for stage, folder in _finished_stages(unpacked):
        if stage != "label":
            _check_made_again(unpacked, *_made_again(stage, folder))


@pytest.mark.parametrize("unpacked", ["files"], indirect=True)
def test_choices_among_files_are_made_again(unpacked: Frozen) -> None:
    """From the beginning, and after an interruption."""
    chosen = unpacked.record["chosen"]
    for words in (*unpacked.record["again"], *(command["words"] for command in unpacked.record["goes_on"])):
        done(*words, "--force")
    for name, picks in chosen.items():
        assert not differing(f"{unpacked.name}: {name}", picks, rows(Path(name)))


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("unpacked", ["experiment"], indirect=True)
def test_a_run_of_an_experiment_is_made_again(unpacked: Frozen) -> None:
    """It takes from its siblings what is the same, and the experiment says again what it said."""
    if not unpacked.is_of_this_machine:
        pytest.skip("floating-point numbers may come out otherwise on this machine")
    folder, run = Path("runs/small"), Path("runs/small/runs/ridge-s3")
    frozen, summary = all_outputs(run), json.loads((folder / "summary.json").read_bytes())
    shutil.rmtree(run)
    (folder / "rows" / "ridge-s3.jsonl").unlink()
    done("experiment", "small.yaml")
    assert not differing(f"{unpacked.name}: {run}", frozen, all_outputs(run))
    assert not differing(f"{unpacked.name}: {folder}", summary, json.loads((folder / "summary.json").read_bytes()))


def differing(place: str, frozen: Any, found: Any, *, between: str = ": ") -> dict[str, str]:
    """The fields in which something found is not what was frozen; numbers may differ as kernels do."""
    before, now = dict(_fields(frozen)), dict(_fields(found))
    return {
        field: f"{before.get(field, 'not there')} → {now.get(field, 'not there')}"
        for field in sorted(before.keys() | now.keys())
        if not _is_equal(before.get(field), now.get(field)) and not _may_differ(f"{place}{between}{field}")
    }


def _fields(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            yield from _fields(part, f"{place}/{name}" if place else str(name))
    else:
        yield place, value


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-7) or one == other
    return type(one) is type(other) and one == other


def _may_differ(place: str) -> bool:
    return any(fnmatch(place, pattern) for pattern in (*CHANGED_ON_PURPOSE, *NEVER_THE_SAME))


def _finished_stages(unpacked: Frozen) -> Iterator[tuple[str, Path]]:
    """Stages that can be made again, with their folders; not people's answers, nor a choice whose features are gone."""
    for run in unpacked.runs:
        if (run / "reference" / "sft" / "manifest.json").is_file():
            yield "sft", run / "reference" / "sft"
        for folder in sorted(run.glob("iter-*")):
            for stage in STAGES:
                path = folder / stage / "manifest.json"
                record = json.loads(path.read_bytes()) if path.is_file() else None
                is_by_people = stage == "label" and record and record["settings"]["label.oracle"] == "human"
                lacks_features = stage == "select" and not (folder / "featurize" / "manifest.json").is_file()
                if record and not is_by_people and not lacks_features:
                    yield stage, folder / stage


def _made_again(stage: str, folder: Path) -> tuple[Path, Path]:
    """Take a stage away, have it made again, and put it back; returns where the frozen and the new one lie now.

    Both are folders with the paths of the stage, and of what lies outside of the iterations and came with it, inside.
    """
    run, frozen, found = _run_of(folder), Path("aside/frozen"), Path("aside/found")
    for old in (frozen, found):
        shutil.rmtree(old, ignore_errors=True)
    if stage == "sft":  # nothing can have been made with its model when it is made
        together = [*run.glob("iter-*"), *run.glob("reference/*-*"), run / "reference/evaluate"]
        words: tuple[object, ...] = ("sft", "--run", run)
    else:
        iteration = int(folder.parent.name[5:])
        together = list(_made_with(stage, folder)) if iteration == 1 else []
        words = (stage, "--run", run, "--iteration", iteration)
    away = [path for path in (folder, *together) if path.exists()]
    for path in away:
        _move(path, frozen / path)
    done(*words)
    for path in away:
        if path.exists():
            _move(path, found / path)
        shutil.copytree(frozen / path, path)
    if stage == "sft":
        for path in together:
            shutil.rmtree(frozen / path, ignore_errors=True)
    return frozen, found


def _made_with(stage: str, folder: Path) -> Iterator[Path]:
    """What lies outside of the iterations and comes with a stage of the first one."""
    run = _run_of(folder)
    needs_adapter = "featurize" if any(folder.parent.glob("featurize/features-*")) else "train"
    if stage == "generate" and _has_pool(run):
        yield run / "pool"
    if stage == needs_adapter:
        yield run / "reference" / "initial-adapter"
    if stage == "evaluate":
        yield run / "reference" / "evaluate"


def _check_made_again(unpacked: Frozen, frozen: Path, found: Path) -> None:
    before, now = all_outputs(frozen), all_outputs(found)
    assert before
    assert now.keys() == before.keys()
    for name, files in before.items():
        assert not differing(f"{unpacked.name}: {name}", files, now[name], between="/")


def _has_pool(run: Path) -> bool:
    return (run / "pool").exists()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def _run_of(folder: Path) -> Path:
    return next(path for path in folder.parents if (path / "run.json").is_file())


def _scored_by_a_model(stage: Path) -> bool:
    settings = json.loads((stage / "manifest.json").read_bytes())["settings"]
    return str(settings.get("label.oracle")).startswith("reward-model")


def _answers(label: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        path.name: rows(path) for path in label.glob("*.jsonl") if path.name in ("outcomes.jsonl", "preferences.jsonl")
    }


def _choice(select: Path) -> list[tuple[str, int]]:
    return [(row["pair_id"], row["rank"]) for row in rows(select / "selection.jsonl")]
