"""Small finished runs, made once and copied by whoever changes them."""

import gc
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are so small that threads only cost
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as commands set it: where tests take two threads, none spins for long
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # PEFT imports bitsandbytes, which would compile for two seconds
os.environ["PYTHONPATH"] = os.pathsep.join(  # processes that tests start find the tests' own scoring rule
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

import pytest
from command_line import done, on
from hypothesis import settings
from report_page import draw_quickly
from small_runs import small_run
from zygote import Zygote, quicken_accelerate

MEMORY = Path("/dev/shm")
"""Where files cost no disk; there is such a place on Linux."""
LONGEST = (
    "test_tutorial.py",
    "run/test_kill.py",
    "earlier_runs/test_earlier_runs.py",
    "experiments/test_experiment_runs.py",
    "test_threads.py",
    "run/test_looking_back.py",
    "run/test_faults.py",
    "gradients/test_projections.py",
    "soak/test_soak.py",
    "cli/test_on_ray.py",
    "cli/test_loop_alone.py",
    "label/web/test_page.py",
)
"""Files that begin first: one of them at the end would keep one worker busy while the other has nothing left to do."""
PROMPTS = [f"Question {number}: what is {number} times {number + 3}?" for number in range(24)]

settings.register_profile("any machine", deadline=None)  # an example may have to wait beside other work
settings.load_profile("any machine")


def pytest_configure() -> None:
    """A whole suite writes a hundred thousand small files, in memory where there is room, and starts many processes.

    Each of those would compile the package again if it could not find it compiled. Until all modules of tests are imported,
    which makes no garbage, the collector would only take a sixth of the time.
    """
    gc.disable()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 8 * 2**30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.hookimpl(tryfirst=True)  # before tests are left out by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts processes, and let the files that take longest begin first.

    All others keep their order, and so do the tests of a file.
    """
    for item in items:
        if "zygote" in getattr(item, "fixturenames", ()):
            item.add_marker("whole")
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACTIVEDPO_RUN", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _collector_leaves_what_is_loaded() -> None:
    """By itself the collector comes so often that it takes a twentieth of the suite."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _accelerate_is_quick() -> None:
    quicken_accelerate()


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """One for all tests of a worker: it imports for seconds and forks in no time."""
    process = Zygote()
    yield process
    process.close()


@pytest.fixture
def place_in_memory() -> Iterator[Path]:
    """A folder in memory where there is such a place, for tests of the order of writes, which need no disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with a single layer of width 32 and a token for every byte; those with two are in `small_models`."""
    from small_models import save_small_model

    return save_small_model(tmp_path_factory.mktemp("models") / "llama", num_hidden_layers=1)


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 prompts."""
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


@pytest.fixture(scope="session")
def finished_original(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path) -> Path:
    """Two finished iterations; read it, never change it."""
    run = small_run(tmp_path_factory.mktemp("runs") / "finished", small_model, prompts_file)
    done(*on(run, "run"), "--iterations", 2, "--quiet", "--no-report")
    return run


@pytest.fixture
def finished(finished_original: Path, tmp_path: Path) -> Path:
    """A copy of two finished iterations, modification times included."""
    return Path(shutil.copytree(finished_original, tmp_path / "finished"))


@pytest.fixture
def blank_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For reports of which something else is looked at."""
    draw_quickly(monkeypatch)


@pytest.fixture
def new_run(tmp_path: Path, small_model: Path, prompts_file: Path) -> Path:
    """A run without any stage."""
    return small_run(tmp_path / "new", small_model, prompts_file)
