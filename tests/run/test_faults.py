"""Every command, failing at its n-th change to a file, and run again: it ends as if nothing had happened."""

import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from command_line import STAGES, all_outputs, done, on, rows
from fault_loop import Case, check_nothing_half_visible, fault_loop, golden
from faults import KINDS
from small_models import save_small_model
from small_runs import small_run
from zygote import Zygote

RUN = Path("runs/one")


class Cases:
    """The commands, each in the state in which it has all its work to do."""

    def __init__(self, root: Path, model: Path, prompts: Path) -> None:
        self.root, self.model, self.prompts = root, model, prompts
        self.finished = root / "finished"
        self.finished.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.finished)
            small_run(RUN, model, prompts, evaluate__num_responses=1)
            done(*on(RUN, "run"), "--iterations", 1, "--quiet", "--no-report")

        self._made: dict[str, Case] = {}

    def case(self, name: str) -> Case:
        """A stage, or one of the methods below."""
        if name not in self._made:
            self._made[name] = self._stage(name) if name in STAGES else getattr(self, f"_{name}")()
        return self._made[name]

    def _stage(self, name: str, called: str = "") -> Case:
        before = self._copy(called or name)
        for later in STAGES[STAGES.index(name) :]:
            shutil.rmtree(before / RUN / "iter-001" / later)
        shutil.rmtree(before / RUN / "reference" / "evaluate")
        if name in STAGES[:2]:
            shutil.rmtree(before / RUN / "reference" / "initial-adapter")
        if name == "generate":
            (before / RUN / "iter-001").rmdir()
        flags = {"generate": ("--temperature", "0.9"), "select": ("--budget", "3"), "label": ("--unit-size", "3")}
        return Case((*on(RUN, name), *flags.get(name, ())), before, _run)

    def _init(self) -> Case:
        """With weights to copy."""
        before = self.root / "init"
        before.mkdir()
        given = ("--prompts", self.prompts, "--eval-prompts", 4, "--model", "tiny")
        return Case((*on(RUN, "init"), *given), before, _made_run)

    def _people(self) -> Case:
        case = self._stage("label", "people")
        return Case((*on(RUN, "label"), "--oracle", "human"), case.before, _label_outcomes, typed="1\n" * 8)

    def _redo(self) -> Case:
        """A finished stage made again beside the old one, and swapped in."""
        before = self._copy("redo")
        return Case((*on(RUN, "select"), "--force", "--budget", "3"), before, _run)

    def _sft(self) -> Case:
        before = self.root / "sft"
        before.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(before)
            small_run(RUN, self.model, self.prompts)
        examples = [{"prompt": f"Say {n}:", "completion": f" {n}."} for n in range(8)]
        (before / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
        steps = ("--batch-size", 2, "--epochs", 1, "--save-steps", 1)
        return Case((*on(RUN, "sft"), "--data", "examples.jsonl", *steps), before, _run)

    def _report(self) -> Case:
        """In the place of an older one."""
        before = self._copy("report")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(before)
            done("report", RUN)
        record = before / RUN / "report" / "manifest.json"
        record.write_text(json.dumps(json.loads(record.read_bytes()) | {"inputs": {}}))
        return Case(("report", RUN), before, _report_files)

    def _experiment(self) -> Case:
        """Of one run; another makes the same changes again."""
        from experiments.test_experiment_runs import ARMS, write_spec

        before = self.root / "experiment"
        before.mkdir()
        write_spec(
            before / "small.yaml",
            self.model,
            self.prompts,
            seeds="3",
            arms={"norm": ARMS["norm"]},
            baseline="norm",
            iterations=1,
            settings={"label.oracle": "python:letter_rule:score", "evaluate.num_responses": 1},
        )
        return Case(("experiment", "small.yaml", "--quiet"), before, _experiment_files)

    def _copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.finished, self.root / name))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory, prompts_file: Path) -> Cases:
    model = save_small_model(tmp_path_factory.mktemp("models") / "llama")
    return Cases(tmp_path_factory.mktemp("cases"), model, prompts_file)


EVERY = (*STAGES, "init", "people", "redo", "sft", "report", "experiment")


TAKES_LONG = ("sft", "report", "experiment")


@pytest.mark.parametrize(
    "place",
    [pytest.param(n, id=name, marks=[pytest.mark.slow] * (name in TAKES_LONG)) for n, name in enumerate(EVERY)],
)
def test_some_faults(zygote: Zygote, cases: Cases, place_in_memory: Path, place: int) -> None:
    """Each command at a few changes; all of them, with all faults, are below."""
    kind = ("power", "enospc", "torn", "eio", "crash-after", "short")[place % 6]
    numbers = (21,) if EVERY[place] in TAKES_LONG else (7 + place % 5, 16 + place % 3)
    assert fault_loop(zygote, cases.case(EVERY[place]), kind, place_in_memory, numbers).faults == len(numbers)


def test_every_power_cut(zygote: Zygote, cases: Cases, place_in_memory: Path) -> None:
    assert fault_loop(zygote, cases.case("select"), "power", place_in_memory).faults > 20


@pytest.mark.parametrize(("name", "limit"), [("init", 20_000), ("featurize", 1_200), ("train", 5_000), ("sft", 60_000)])
def test_a_library_that_may_write_no_more(
    zygote: Zygote, cases: Cases, place_in_memory: Path, name: str, limit: int
) -> None:
    """Its own way of saying so is understood, and the file is named."""
    case, work, said = cases.case(name), place_in_memory / "work", place_in_memory / "said"
    shutil.copytree(case.before, work)
    fault = {"kind": "limit", "at": limit, "note": ""}
    assert zygote.run(case.words, work, stderr=said, fault=fault) == 1
    text = said.read_text()
    assert "Traceback" not in text
    assert "this is a bug" not in text
    assert "File too large" in text
    assert "ulimit -f" in text
    assert zygote.run(case.words, work, stderr=said) == 0, said.read_text()
    check_nothing_half_visible(work)
    assert not list(work.rglob(".*.tmp*"))


def test_eight_at_once(zygote: Zygote, cases: Cases, place_in_memory: Path) -> None:
    """One works; the others say who does, or find it done."""
    case = cases.case("generate")
    shutil.copytree(case.before, place_in_memory / "work")
    said = [place_in_memory / f"said-{number}" for number in range(8)]
    pids = [zygote.start(case.words, place_in_memory / "work", stderr=path) for path in said]
    ended = [zygote.wait(pid) for pid in pids]
    texts = [path.read_text() for path in said]
    assert set(ended) <= {0, 75}, texts
    assert 75 in ended
    worked = [text for code, text in zip(ended, texts, strict=True) if code == 0 and "up to date" not in text]
    assert len(worked) == 1
    for code, text in zip(ended, texts, strict=True):
        if code == 75:
            who = re.search(r"process (\d+) on (\S+)", text.replace("\n", " "))
            assert who, text
            assert int(who[1]) in pids
            assert who[2] == socket.gethostname()
    assert case.look(place_in_memory / "work") == golden(zygote, case, place_in_memory / "alone")
    check_nothing_half_visible(place_in_memory / "work")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EVERY)
def test_every_fault_at_every_change(zygote: Zygote, cases: Cases, place_in_memory: Path, name: str, kind: str) -> None:
    found = fault_loop(zygote, cases.case(name), kind, place_in_memory)
    assert found.faults > 5
    print(json.dumps({"command": name, "kind": kind, "faults": found.faults}))


def _run(folder: Path) -> Any:
    return all_outputs(folder / RUN), (folder / RUN / "config.yaml").read_text()


def _made_run(folder: Path) -> Any:
    files = {path.relative_to(folder): path.read_bytes() for path in (folder / RUN).rglob("*") if path.is_file()}
    facts = json.loads(files.pop(RUN / "run.json"))
    del facts["created"], facts["checksum"]  # of the former, too
    return files, facts


def _label_outcomes(folder: Path) -> Any:
    return [(row["pair_id"], row["outcome"]) for row in rows(folder / RUN / "iter-001" / "label" / "outcomes.jsonl")]


def _report_files(folder: Path) -> Any:
    report = folder / RUN / "report"
    paths = [path for path in report.rglob("*") if path.is_file() and path.name != "manifest.json"]  # which has times
    outputs = json.loads((report / "manifest.json").read_bytes())["outputs"]
    return {path.relative_to(report): path.read_bytes() for path in paths}, outputs


def _experiment_files(folder: Path) -> Any:
    made = folder / "runs" / "small"
    runs = {path.name: all_outputs(path) for path in (made / "runs").iterdir() if not path.name.startswith(".")}
    results = [{k: v for k, v in row.items() if k != "seconds"} for row in rows(made / "results.jsonl")]
    files = [path for path in made.rglob("*") if path.is_file() and ".locks" not in path.parts]
    return runs, results, sorted(path.name for path in files if not _is_spent(path))


def _is_spent(path: Path) -> bool:
    """Whether it is a note about work that is finished, or what was cut off: a kill at that moment leaves it, for nobody."""
    is_note = path.name in ("started.json", ".attempts.json") and path.with_name("manifest.json").exists()
    return is_note or path.name == "labels.torn"
