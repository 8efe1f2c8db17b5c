"""The number of threads follows from the model and from what the machine grants, is recorded, and kept by what goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import done, make_partial, manifest, on, refused
from small_runs import small_run

from activedpo_cli.base import threads
from activedpo_cli.base.threads import Threads, allotted_cores, own_threads, prepare, stage_threads, working_with
from activedpo_cli.oracles._sequence_classifier import SequenceClassifier

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
OBSERVED_RULE = """
import torch
from pathlib import Path
def score(prompts, responses):
    with Path("seen").open("a") as seen:
        seen.write(f"{torch.get_num_threads()} ")
    if Path("broken").exists() and len(Path("seen").read_text().split()) > 1:
        raise RuntimeError("for now")
    return [float(len(response)) for response in responses]
"""


def bound_to(monkeypatch: pytest.MonkeyPatch, *processors: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(processors), raising=False)


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may use three cores, and a user who has set nothing."""
    for name in (*VARIABLES, threads.OURS, threads.WORKERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "allotted_cores", lambda: 3)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


VERSION_2 = {"proc/self/cgroup": "0::/group/job"}
VERSION_1 = {"proc/self/cgroup": "3:cpuset:/other\n2:cpu,cpuacct:/job\n1:memory:/job"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        (VERSION_2 | {"sys/fs/cgroup/group/job/cpu.max": "max 100000"}, 8),
        (VERSION_2 | {"sys/fs/cgroup/group/job/cpu.max": "300000 100000"}, 3),
        (VERSION_2 | {"sys/fs/cgroup/group/job/cpu.max": "350000 100000"}, 3),
        (VERSION_2 | {"sys/fs/cgroup/group/job/cpu.max": "50000 100000"}, 1),
        (
            VERSION_2
            | {"sys/fs/cgroup/group/job/cpu.max": "max 100000", "sys/fs/cgroup/group/cpu.max": "200000 100000"},
            2,
        ),
        (VERSION_2 | {"sys/fs/cgroup/cpu.max": "400000 100000"}, 4),  # as a container sees its own group
        (VERSION_2 | {"sys/fs/cgroup/group/job/cpu.max": "3200000 100000"}, 8),
        (VERSION_2 | {"sys/fs/cgroup/group/job/cpu.max": "nonsense"}, 8),
        (VERSION_1 | {"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "-1"}, 8),
        (
            VERSION_1
            | {"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "250000", "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "50000"},
            5,
        ),
        (
            VERSION_1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "20000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "10000"},
            2,
        ),
    ],
)
def test_no_more_threads_than_the_quota_of_the_control_groups(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound_to(monkeypatch, *range(8))
    assert allotted_cores(write(tmp_path, **files)) == cores


def test_two_hardware_threads_are_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors 0 and 4 are one core, 1 and 5, and so on; a process bound to 0, 4 and 5 has two."""
    siblings = {
        f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}" for n in range(8)
    }
    root = write(tmp_path, **siblings)
    for processors, cores in ((range(8), 4), ((0, 4, 5), 2), ((3,), 1)):
        bound_to(monkeypatch, *processors)
        assert allotted_cores(root) == cores


@pytest.mark.whole
@pytest.mark.skipif(sys.platform != "linux", reason="wheels for other systems come with another OpenMP runtime")
@pytest.mark.parametrize(
    ("given", "spins", "number"),
    [
        ({}, "1000", None),
        ({"GOMP_SPINCOUNT": "77"}, "77", None),
        ({"OMP_WAIT_POLICY": "passive"}, "0", None),
        ({"OMP_NUM_THREADS": "1"}, "1000", "1"),
    ],
)
def test_the_runtime_that_torch_loads_says_that_it_heard(given: dict[str, str], spins: str, number: str | None) -> None:
    """The library itself is loaded, which says so then; that it is the one that torch loads is tried below."""
    says = child(
        "import activedpo_cli.__main__ as command, sys; sys.argv[1:] = ['--version']\n"
        "try: command.main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
        f"import ctypes; ctypes.CDLL({str(runtime_of_torch())!r})",
        OMP_DISPLAY_ENV="VERBOSE",
        **given,
    )
    assert f"GOMP_SPINCOUNT = '{spins}'" in says
    assert f"OMP_NUM_THREADS = '{number or allotted_cores()}'" in says


@pytest.mark.whole
@pytest.mark.skipif(sys.platform != "linux", reason="wheels for other systems come with another OpenMP runtime")
def test_torch_loads_one_runtime_when_it_is_imported_and_not_before() -> None:
    """So it hears what is set until then."""
    loaded = (
        "{os.path.realpath(line.split()[-1]) for line in open('/proc/self/maps') if 'gomp' in line or 'iomp' in line}"
    )
    says = child(f"import os; print({loaded})\nimport torch; print({loaded})")
    assert says.splitlines() == ["set()", str({str(runtime_of_torch().resolve())})]


def runtime_of_torch() -> Path:
    """The OpenMP library that comes with torch."""
    place = Path(torch.__file__).parent
    (path,) = [*place.glob("lib/libgomp*"), *place.parent.glob("torch.libs/libgomp*")]
    return path


def child(code: str, **given: str) -> str:
    """What a Python process says that has these variables and none of the others."""
    kept = {
        name: value for name, value in os.environ.items() if name not in (*VARIABLES, threads.OURS, threads.WORKERS)
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env=kept | given, capture_output=True, text=True, check=True, timeout=100
    )
    return ended.stdout + ended.stderr


def test_what_the_user_has_set_stands(three_cores: None) -> None:
    environment = {"OMP_NUM_THREADS": "5", "KMP_BLOCKTIME": "200"}
    prepare(environment)
    assert (environment["OMP_NUM_THREADS"], environment["KMP_BLOCKTIME"]) == ("5", "200")
    assert own_threads(environment) == Threads(5, 5, "OMP_NUM_THREADS")
    assert own_threads({"OMP_NUM_THREADS": "5", "MKL_NUM_THREADS": "2"}).most == 2
    assert own_threads({"OMP_NUM_THREADS": "4,2"}).most == 4
    assert own_threads({"OMP_NUM_THREADS": "many"}) == Threads(3, 3, "cores")


def test_a_started_process_takes_no_number_of_ours_for_the_users(
    three_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment: dict[str, str] = {}
    prepare(environment)
    assert environment["OMP_NUM_THREADS"] == "3"
    monkeypatch.setattr(threads, "allotted_cores", lambda: 8)
    prepare(environment)
    assert environment["OMP_NUM_THREADS"] == "8"
    assert own_threads(environment).decided_by == "cores"


@pytest.mark.parametrize(("workers", "number"), [("2", 4), ("3", 2), ("20", 1), ("0", 8), ("", 8)])
def test_processes_of_an_experiment_share_the_cores(
    three_cores: None, monkeypatch: pytest.MonkeyPatch, workers: str, number: int
) -> None:
    monkeypatch.setattr(threads, "allotted_cores", lambda: 8)
    assert own_threads({threads.WORKERS: workers}) == Threads(number, number, "cores")
    assert own_threads({threads.WORKERS: workers, "OMP_NUM_THREADS": "3"}).most == 3


def test_small_models_are_run_by_one_thread(three_cores: None) -> None:
    one_mib = 2**20
    assert [own_threads().suited_to(size) for size in (1, one_mib, one_mib + 1, None)] == [1, 1, 3, 3]
    assert Threads(4, 4, "OMP_NUM_THREADS").suited_to(1) == 4


def test_torch_computes_with_them_and_gets_its_own_back() -> None:
    before = torch.get_num_threads()
    with working_with(Threads(1, 2, "cores")):
        assert torch.get_num_threads() == 1
        with threads.threads_for(None):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), working_with(Threads(before + 1, before + 1, "cores")):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


@pytest.mark.whole
def test_one_thread_is_one_thread_however_it_is_asked_for() -> None:
    """Bit for bit: a process that had one from its start, and one that had three and was told."""
    work = (
        "import hashlib, torch\n"
        "from activedpo_cli.base.threads import Threads, prepare, working_with\n"
        "prepare()\n"
        "with working_with(Threads(1, 3, 'cores')):\n"
        "    g = torch.Generator().manual_seed(0)\n"
        "    x, w = (torch.randn(700, 700, generator=g, requires_grad=True) for _ in range(2))\n"
        "    torch.nn.functional.gelu(x @ w).softmax(-1).log().sum().backward()\n"
        "    print(hashlib.sha256(w.grad.numpy().tobytes()).hexdigest())"
    )
    assert child(work, OMP_NUM_THREADS="1") == child(work, OMP_NUM_THREADS="3")


def test_stages_record_them(
    three_cores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path, prompts_file: Path
) -> None:
    """One for a small policy; a function of the user's, whose model nobody knows, gets all that there are."""
    run = observed_run(tmp_path, monkeypatch, small_model, prompts_file)
    done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    recorded = {
        stage: manifest(run, 1, stage)["execution"]["threads"]
        for stage in ("generate", "featurize", "select", "label", "train", "evaluate")
    }
    of_a_small_model = {"number": 1, "most": 3, "decided_by": "cores"}
    of_no_model = {"number": 3, "most": 3, "decided_by": "cores"}
    assert recorded == dict.fromkeys(recorded, of_a_small_model) | dict.fromkeys(("select", "label"), of_no_model)
    assert set((tmp_path / "seen").read_text().split()) == {"3"}


def observed_run(folder: Path, monkeypatch: pytest.MonkeyPatch, model: Path, prompts: Path) -> Path:
    (folder / "observed_rule.py").write_text(OBSERVED_RULE)
    monkeypatch.chdir(folder)
    return small_run(folder / "run", model, prompts, oracle="python:observed_rule:score")


@pytest.mark.parametrize("size", [0, 8 * 2**20])
def test_a_reward_model_is_run_by_what_suits_it(
    three_cores: None, monkeypatch: pytest.MonkeyPatch, size: int, seen: list[int], tiny_rewards: SequenceClassifier
) -> None:
    monkeypatch.setattr(threads, "SMALL_WEIGHTS_BYTES", size)
    tiny_rewards.score(["Once"], [" there was a dog."])
    assert seen == [1 if size else 3]


@pytest.fixture
def tiny_rewards() -> SequenceClassifier:
    from activedpo_cli.base.settings import LabelSettings

    folder = Path(threads.__file__).parents[1] / "tiny" / "assets" / "reward-model"
    return SequenceClassifier.load(str(folder), None, LabelSettings(), "cpu")


@pytest.fixture
def seen(tiny_rewards: SequenceClassifier) -> list[int]:
    """With how many threads its model was run."""
    numbers: list[int] = []
    tiny_rewards._model.register_forward_hook(lambda *_: numbers.append(torch.get_num_threads()))
    return numbers


def test_a_stage_goes_on_with_the_number_that_it_began_with(
    three_cores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path, prompts_file: Path
) -> None:
    run = observed_run(tmp_path, monkeypatch, small_model, prompts_file)
    for stage in ("generate", "featurize", "select"):
        done(*on(run, stage), "--quiet")
    (tmp_path / "broken").touch()
    refused(1, *on(run, "label"))  # after the first unit of two
    (tmp_path / "broken").unlink()
    (tmp_path / "seen").unlink()
    monkeypatch.setattr(threads, "allotted_cores", lambda: 2)
    result = done(*on(run, "label"))
    assert manifest(run, 1, "label")["execution"]["threads"] == {"number": 3, "most": 3, "decided_by": "cores"}
    assert set((tmp_path / "seen").read_text().split()) == {"3"}
    assert "thread" not in result.stderr


def test_another_number_of_the_users_is_obeyed_and_said(
    three_cores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_model: Path, prompts_file: Path
) -> None:
    run = observed_run(tmp_path, monkeypatch, small_model, prompts_file)
    done(*on(run, "generate"))
    make_partial(run, 1, "generate", "responses-00001.jsonl")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    result = done(*on(run, "generate"))
    assert "begun with 1 thread " in result.stderr
    assert "goes on with 2 threads, since OMP_NUM_THREADS is set" in " ".join(result.stderr.split())
    assert manifest(run, 1, "generate")["execution"]["threads"]["number"] == 2


def test_what_a_version_before_began_takes_the_number_of_now(three_cores: None) -> None:
    said: list[str] = []
    assert stage_threads({}, 1, said.append) == Threads(1, 3, "cores")
    assert stage_threads({"threads": {"of": "another form"}}, None, said.append) == Threads(3, 3, "cores")
    assert not said
