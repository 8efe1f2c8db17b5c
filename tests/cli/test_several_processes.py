"""Several processes given the same command share its units, as `--shard` or their launcher says; the bytes stay the same."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import RULE, STAGES, activedpo, all_outputs, done, manifest, on, refused, rows, snapshot
from small_runs import small_run
from zygote import Zygote

from activedpo_cli.train.trainer_setup import on_one_device

LAUNCHED = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"}


@pytest.fixture
def begun_anew(finished: Path) -> Path:
    """A run whose stages are still to be done."""
    for t in (1, 2):
        shutil.rmtree(finished / f"iter-{t:03d}")
    shutil.rmtree(finished / "reference" / "evaluate")
    return finished


def together(zygote: Zygote, commands: list[tuple[Any, ...]], folder: Path, environments: list[dict[str, str]]) -> None:
    """Run commands at the same time, each of which must succeed."""
    said = [folder / f"said-{number}" for number in range(len(commands))]
    pids = [
        zygote.start(words, folder, stdout=path, stderr=path, environment=environment)
        for words, path, environment in zip(commands, said, environments, strict=True)
    ]
    ended = [zygote.wait(pid) for pid in pids]
    assert ended == [0] * len(commands), [path.read_text() for path in said]


def test_two_shards_make_what_one_process_makes(begun_anew: Path, finished_original: Path, zygote: Zygote) -> None:
    words = on(begun_anew, "run", "--iterations", 2, "--quiet", "--no-report")
    together(zygote, [(*words, "--shard", f"{n}/2") for n in (0, 1)], begun_anew.parent, [{}, {}])
    assert all_outputs(begun_anew) == all_outputs(finished_original)
    record = json.loads((begun_anew / "iter-001" / "generate" / "manifest.json").read_bytes())
    assert record["execution"]["attempts"] == 1


def test_a_chain_of_commands_under_a_launcher(begun_anew: Path, finished_original: Path, zygote: Zygote) -> None:
    """Each process does all commands; none waits at an address where nobody is, as training libraries would."""
    for stage in STAGES:
        words = on(begun_anew, stage, "--iteration", 1)
        together(zygote, [words, words], begun_anew.parent, [LAUNCHED | {"RANK": str(rank)} for rank in (0, 1)])
        said = [(begun_anew.parent / f"said-{rank}").read_text() for rank in (0, 1)]
        assert f"{stage}" in said[0]
        assert said[1] == "", "one of them speaks for both"
    made, expected = all_outputs(begun_anew), all_outputs(finished_original)
    assert made == {name: files for name, files in expected.items() if not name.startswith("iter-002")}


def test_one_of_several_goes_on_where_another_was_killed(
    begun_anew: Path, finished_original: Path, zygote: Zygote
) -> None:
    words = on(begun_anew, "generate", "--iteration", 1, "--quiet")
    doomed = zygote.start((*words, "--shard", "1/2"), begun_anew.parent)
    generated = begun_anew / "iter-001" / "generate"
    while not list(generated.glob("responses-*")):
        time.sleep(0.001)
    os.kill(doomed, signal.SIGKILL)
    assert zygote.wait(doomed) == -signal.SIGKILL
    assert not (generated / "manifest.json").exists(), "it was killed too late to prove anything"
    done(*words, "--shard", "0/2")
    name = "iter-001/generate"
    assert all_outputs(begun_anew)[name] == all_outputs(finished_original)[name]


def test_one_without_the_files_of_the_model_is_refused_and_the_other_goes_on(
    tmp_path: Path, small_model: Path, prompts_file: Path, zygote: Zygote
) -> None:
    """The model is renamed while the first process, which has loaded it, works: the second is on a machine without it."""
    model = Path(shutil.copytree(small_model, tmp_path / "model"))
    run = small_run(tmp_path / "run", model, prompts_file)
    words = on(run, "generate", "--quiet")
    slowed = "activedpo_cli.generate.sampling:SamplingUnits.do"
    first = zygote.start((*words, "--shard", "0/2"), tmp_path, slowed=slowed)
    generated = run / "iter-001" / "generate"
    while not list(generated.glob("responses-*")):
        time.sleep(0.001)
    model.rename(tmp_path / "elsewhere")
    told = refused(3, *words, "--shard", "1/2")
    assert f"the model in `{model}` is not the one this run was made with" in told
    assert not (generated / "manifest.json").exists(), "it was refused too late to prove anything"
    (tmp_path / "elsewhere").rename(model)
    assert zygote.wait(first) == 0
    assert manifest(run, 1, "generate")["execution"]["attempts"] == 1


def test_one_of_several_needs_no_other(begun_anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "5")
    done(*on(begun_anew, "generate", iteration=1), "--quiet")


def test_making_again_is_for_one(finished: Path) -> None:
    before = snapshot(finished)
    told = refused(2, *on(finished, "generate", iteration=2), "--force", "--shard", "0/2")
    assert "--force is for one process" in told
    assert snapshot(finished) == before
    done(*on(finished, "select", iteration=2), "--force", "--shard", "0/1")


def test_a_choice_among_files_is_for_one(tmp_path: Path) -> None:
    among = ("select", "--features", tmp_path / "f.safetensors", "--pairs", tmp_path / "p.jsonl", "--budget", 1)
    assert "in one process" in refused(2, *among, "--shard", "1/2")


def test_one_of_several_starts_no_processes_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "leave one out" in refused(2, "experiment", "figure-1-tiny", "--jobs", 2, "--shard", "0/4")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "one of 4 processes" in refused(2, "experiment", "figure-1-tiny", "--jobs", 2)
    assert "one of 4 processes" in refused(2, "export", "--to", "trl")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", ["1", "", "many"])
def test_one_process_is_no_crowd(finished: Path, monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    done(*on(finished, "train", iteration=2))


def test_whoever_looks_may_be_many(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done("ls", "methods")
    done(*on(finished, "status"))
    assert activedpo("generate", "--help").exit_code == 0


@pytest.mark.slow
def test_two_ranks_of_torchrun(begun_anew: Path, finished_original: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    told = subprocess.run(
        [*launcher, "-m", "--", "activedpo_cli", "run", "--run", begun_anew, "--iterations", "2", "--no-report"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    assert all_outputs(begun_anew) == all_outputs(finished_original)


@pytest.mark.parametrize("page", ["docs/scale.md", "docs/tutorial/your-cluster.md"])
def test_torchrun_takes_the_commands_of_the_docs_as_they_stand(page: str) -> None:
    """Which would take an option that begins like one of its own, as `--run` does."""
    from torch.distributed.run import get_args_parser

    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    commands = re.findall(r"torchrun [^`\n]* run [^`\n]*", text)
    assert commands
    for command in commands:
        read = get_args_parser().parse_args(shlex.split(command)[1:])
        assert (read.module, read.training_script) == (True, "activedpo_cli")
        assert read.training_script_args[0] == "run"


def test_two_gpus_without_a_launcher_are_one() -> None:
    """TRL would refuse to spread one model over them, and transformers would do it unasked."""

    class Arguments:
        _n_gpu = 2

        @property
        def n_gpu(self) -> int:
            return self._n_gpu

    assert on_one_device(Arguments()).n_gpu == 1


ONCE = ("--iterations", 1, "--quiet", "--no-report")
NOTING = """
import os, time
from letter_rule import score as by_rule

def score(prompts, responses):
    time.sleep(0.05)
    with open("asked", "a") as asked:
        asked.write(f"{os.getpid()} {len(responses)}\\n")
    return by_rule(prompts, responses)
"""


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Path:
    """A run on which everything is asked that can be shared: two draws, two scorers, held-out preferences.

    It has not begun; `alone`, which has the same settings, is one iteration by one process, and `asked` what it asked.
    """
    place = tmp_path_factory.mktemp("noted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        (place / "noting.py").write_text(NOTING)
        (place / "held-out.jsonl").write_text(
            "".join(json.dumps({"prompt": f"{n}?", "chosen": "yes" * n, "rejected": "no"}) + "\n" for n in range(1, 5))
        )
        drawn = {"label__answer": "bradley-terry", "label__overlap": 3, "label__settle": "majority"}
        drawn |= {"label__unit_size": 1}
        scored = {"evaluate__second_scorer": RULE, "evaluate__preferences": "held-out.jsonl"}
        run = small_run(place / "shared", small_model, prompts_file, "python:noting:score", **drawn, **scored)
        alone = Path(shutil.copytree(run, place / "alone"))
        done(*on(alone, "run"), *ONCE)
    return place


@pytest.fixture
def noting(noted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run that has not begun, beside the one that is done, where this process stands."""
    monkeypatch.chdir(shutil.copytree(noted, tmp_path / "noted"))
    return tmp_path / "noted" / "shared"


def test_answers_rewards_and_log_probabilities_are_shared(noting: Path, zygote: Zygote) -> None:
    place, alone = noting.parent, noting.parent / "alone"
    asked_alone = [line.split()[1] for line in (place / "asked").read_text().splitlines()]
    (place / "asked").unlink()
    together(zygote, [(*on(noting, "run"), *ONCE, "--shard", f"{n}/2") for n in (0, 1)], place, [{}, {}])
    assert all_outputs(noting) == all_outputs(alone)
    asked = [line.split() for line in (place / "asked").read_text().splitlines()]
    assert len({pid for pid, _ in asked}) == 2, "one process asked for everything"
    assert sorted(number for _, number in asked) == sorted(asked_alone), "something was asked twice"
    labels = [
        [(row["label"]["pair_id"], row["label"]["annotator"]) for row in rows(run / "iter-001/label/labels.jsonl")]
        for run in (noting, alone)
    ]
    assert labels[0] == labels[1], "the log has another order"
    for folder in ("iter-001/label", "iter-001/evaluate", "reference/evaluate"):
        left = [path.name for path in (noting / folder).iterdir()]
        assert sorted(left) == sorted(path.name for path in (alone / folder).iterdir())
    claims = [path.name for path in (noting / ".locks").rglob("*.lock")]
    for column in ("logps", "ref-logps", "held-out-logps", "held-out-ref-logps", "second-reward"):
        assert f"measured-{column}-00000.jsonl.lock" in claims


def test_what_another_one_is_just_measuring_of_the_initial_model_is_no_fault(finished: Path) -> None:
    """It comes into a folder that has its manifest already."""
    shutil.rmtree(finished / "iter-002" / "evaluate")
    (finished / "reference" / "evaluate" / "measured-rewards-0123456789ab-00000.jsonl").write_text("{}\n")
    done(*on(finished, "evaluate", iteration=2))
    done(*on(finished, "verify"))


def test_alone_goes_on_with_answers_and_rewards_of_several_that_were_killed(noting: Path, zygote: Zygote) -> None:
    """What units hold is not asked again, and stands in the log in its order."""
    place, alone = noting.parent, noting.parent / "alone"
    for stage, pattern in (("label", "*answers-*"), ("evaluate", "measured-reward-*")):
        doomed = (*on(noting, "run"), *ONCE, "--shard", "1/2")
        folder = noting / "iter-001" / stage
        status = zygote.stop_when(doomed, place, lambda at=folder, of=pattern: any(at.glob(of)), signal.SIGKILL)
        assert status == -signal.SIGKILL
        assert not (folder / "manifest.json").exists(), "it was killed too late to prove anything"
    (place / "asked").unlink()
    done(*on(noting, "run"), *ONCE)
    assert all_outputs(noting) == all_outputs(alone)
    assert not list(noting.glob("iter-001/*/measured-*"))
    asked = [line.split()[1] for line in (place / "asked").read_text().splitlines()]
    assert len(asked) < 4, "the initial rewards stand, and so does a part of the others"
