"""What a busy machine does to a run: updates of *train* a second and a whole run, alone and beside busy processes.

"Before" is what torch does by itself: a thread for each core, which spin 300,000 turns at every wait; both are asked for by
the variables of the environment, which the program leaves alone. "After" is the program with no variable set. The two take
turns, so that what else happens on the machine happens to both; medians and their ratio are printed as markdown tables.

    python tests/benchmarks/busy_machine.py                    # less than 12 minutes, on a machine with nothing else to do
    python tests/benchmarks/busy_machine.py --minutes 3 --quick    # does it run?

The busy processes are plain Python loops, or torch multiplying matrices with its own number of threads. Updates are of DPO
by `train_dpo` on the built-in model with the adapter, batch and lengths of preset `tiny`; a process that is measured has
loaded everything before. The run is `activedpo run --iterations 1` from its start to its end; one that takes longer than
`--limit` is stopped, and shown as longer than that. A third of `--minutes` is for the updates. What does not fit is left
out, and the table says so.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from activedpo_cli.base.threads import NUMBERS, OURS, WAIT_POLICY, WAITS, WORKERS, allotted_cores, prepare  # noqa: E402

VARIABLES = {*NUMBERS, *WAITS, WAIT_POLICY, OURS, WORKERS}
VARIANTS = {
    "before": {"OMP_NUM_THREADS": str(allotted_cores()), "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    "after": {},
}
BUSY = {
    "python": "import os\nstarted_by = os.getppid()\nwhile os.getppid() == started_by: sum(range(10**5))",
    "torch": "import os, torch\nstarted_by, a = os.getppid(), torch.rand(600, 600)\n"
    "while os.getppid() == started_by: (a @ a).sum()",
}
"""They end with the process that started them, however that ends."""
LOADS = [("idle", 0), ("python", 2), ("python", 4), ("python", 8), ("torch", 2), ("torch", 4), ("torch", 8)]
RUN_LOADS = [("idle", 0), ("python", 4), ("python", 8), ("python", 2), ("torch", 4)]
"""In the order in which they matter, since the last ones may not fit."""
SETTLED_SECONDS = 3.0


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=11.5, help="when to stop measuring")
    parser.add_argument("--limit", type=float, default=120.0, help="the longest that a run may take, in seconds")
    parser.add_argument("--quick", action="store_true", help="idle and four busy processes, one round")
    parser.add_argument("--trainer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trainer:
        serve_updates()
        return
    began = time.monotonic()
    middle, end = began + 20 * options.minutes, began + 60 * options.minutes
    seconds, rounds = (2.0, 1) if options.quick else (3.0, 3)
    kept = [("idle", 0), ("python", 4)] if options.quick else None
    print(f"{allotted_cores()} cores; load average before: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    table("updates a second", updates(kept or LOADS, seconds, rounds, middle), None)
    table("seconds of a run", runs(kept or RUN_LOADS, options.limit, end), options.limit)


def table(what: str, rows: Iterator[tuple[str, dict[str, list[float]]]], limit: float | None) -> None:
    """Print a row for each load: the median of either variant, its range, and how many times better after is.

    With a limit the numbers are seconds, of which fewer are better, and which were not waited for beyond it.
    """
    print(f"| {what} | before | after | after is better by |\n|---|--:|--:|--:|")
    for label, found in rows:
        if not all(found.values()):
            print(f"| {label} | not measured | | |", flush=True)
            continue
        before, after = (median(found[name]) for name in VARIANTS)
        cells = [f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})" for values in found.values()]
        ratio = f"{after / before if limit is None else before / after:.2f} ×"
        if limit is not None and before >= limit:
            cells[0], ratio = f"> {limit:.0f}", f"> {ratio}"
        if limit is not None and after >= limit:
            cells[1], ratio = f"> {limit:.0f}", "–"
        print(f"| {label} | {' | '.join(cells)} | {ratio} |", flush=True)
    print()


def updates(
    loads: list[tuple[str, int]], seconds: float, rounds: int, end: float
) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Updates a second of both variants, in turns, beside each load."""
    trainers = {name: Trainer(variables) for name, variables in VARIANTS.items()}
    try:
        for kind, count in loads:
            found: dict[str, list[float]] = {name: [] for name in VARIANTS}
            with busy(kind, count if time.monotonic() < end else 0):
                for name in list(VARIANTS) * rounds:
                    if time.monotonic() < end:
                        found[name].append(trainers[name].updates_a_second(seconds))
            yield label(kind, count), found
    finally:
        for trainer in trainers.values():
            trainer.close()


def runs(loads: list[tuple[str, int]], limit: float, end: float) -> Iterator[tuple[str, dict[str, list[float]]]]:
    """Seconds of a whole run of both variants beside each load."""
    for kind, count in loads:
        found: dict[str, list[float]] = {name: [] for name in VARIANTS}
        with busy(kind, count if time.monotonic() < end else 0):
            for name in VARIANTS:
                if time.monotonic() + limit < end:
                    found[name].append(seconds_of_a_run(VARIANTS[name], limit))
        yield label(kind, count), found


def label(kind: str, count: int) -> str:
    """`beside 4 python loops`."""
    return f"beside {count} {kind} loops" if count else "alone"


def environment(variables: dict[str, str]) -> dict[str, str]:
    """The variables of this process without those that concern threads, and with these."""
    return {name: text for name, text in os.environ.items() if name not in VARIABLES} | variables


@contextmanager
def busy(kind: str, count: int) -> Iterator[None]:
    """So many processes that never rest; they end with the block."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY[kind]], env=environment({})) for _ in range(count)]
    try:
        if count:
            time.sleep(SETTLED_SECONDS)
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def seconds_of_a_run(variables: dict[str, str], limit: float) -> float:
    """How long `activedpo run --iterations 1` takes, or the limit where it takes longer."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "activedpo_cli", "run", "--iterations", "1", "--run", f"{folder}/run"]
        began = time.monotonic()
        process = subprocess.Popen(
            [*command, "--quiet", "--no-report"], cwd=ROOT, env=environment(variables), start_new_session=True
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return limit
        if code:
            raise SystemExit(f"the run ended with exit code {code}")
        return time.monotonic() - began


class Trainer:
    """A process that has loaded the built-in model and trains it when it is asked to."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--trainer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(variables),
        )
        self.updates_a_second(0.0)  # the first updates find nothing prepared

    def updates_a_second(self, seconds: float) -> float:
        """Train for a while, two updates at least."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


class EnoughError(Exception):
    """The time to train is over."""


def serve_updates() -> None:
    """Read how many seconds to train from stdin, and answer with updates a second."""
    prepare()
    import torch

    from activedpo_cli.base.config import build_config
    from activedpo_cli.base.presets import read_preset
    from activedpo_cli.base.threads import stage_threads, working_with
    from activedpo_cli.models.adapters import with_fresh_adapter
    from activedpo_cli.models.loading import load_base_model, load_tokenizer
    from activedpo_cli.train.dpo_trainer import DPOExample, train_dpo

    config = build_config(read_preset("tiny"))
    assets = ROOT / "activedpo_cli" / "tiny" / "assets"
    weights, cpu = assets / "language-model", torch.device("cpu")
    tokenizer = load_tokenizer(str(weights))
    base = load_base_model(str(weights), dtype="float32", device=cpu, attn_implementation="sdpa")
    policy = with_fresh_adapter(base, config.adapter, seed=0)
    lines = (assets / "prompts-train.txt").read_text(encoding="utf-8").splitlines()
    texts = [tokenizer(line)["input_ids"] for line in lines]
    length = config.generate.max_new_tokens
    answers = [(text * length)[:length] for text in texts]
    examples = [
        DPOExample(pair_id=str(n), prompt_ids=texts[n], chosen_ids=answers[n + 1], rejected_ids=answers[n + 2])
        for n in range(config.select.budget)
    ]
    settings = config.train.model_copy(update={"num_train_epochs": 10_000})
    threads = stage_threads({}, (weights / "model.safetensors").stat().st_size, print)

    def trained(seconds: float) -> float:
        times: list[float] = []

        def note(row: dict[str, float]) -> None:
            times.append(time.perf_counter())
            if len(times) > 1 and times[-1] - times[0] > seconds:
                raise EnoughError

        with tempfile.TemporaryDirectory() as scratch, suppress(EnoughError):
            train_dpo(policy, tokenizer, examples, settings, seed=0, device=cpu, on_log=note, scratch=Path(scratch))
        return (len(times) - 1) / (times[-1] - times[0])

    for line in sys.stdin:
        with working_with(threads):
            print(trained(float(line)), flush=True)


if __name__ == "__main__":
    main()
