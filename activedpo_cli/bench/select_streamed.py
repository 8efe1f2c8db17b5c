"""What a greedy choice among candidates in a file costs, in a process of its own, so that its memory can be told.

Run as `python -m activedpo_cli.bench.select_streamed FILE PLAN`, it prints what it measured as JSON.
"""

import json
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.bench.select import inverse_design, scores_as_written
from activedpo_cli.pairs.pair_features import PairFeatures
from activedpo_cli.select.design.greedy import PoolSize, pooled_greedy

WRITTEN_AT_ONCE = 2**14
TIMED = 2**16
"""Pairs on which the other ways are timed, scaled to all."""


@dataclass(frozen=True, kw_only=True)
class StreamedPlan:
    """Responses of random float16 features in a file, as many pairs of neighbours, and `memory` bytes for features."""

    pairs: int
    proj_dim: int
    budget: int
    labelled: int
    ridge: float
    memory: int
    seed: int

    @property
    def file_bytes(self) -> int:
        """Of the features."""
        return 2 * self.pairs * self.proj_dim

    def labelled_features(self) -> Tensor:
        """φ of the pairs labelled earlier, in float64."""
        return _randn(self, self.labelled, "labelled", 0).double()

    def candidates(self, file: Path) -> PairFeatures:
        """Each response with the next."""
        first = torch.arange(self.pairs)
        return PairFeatures(TensorRows(file, "features"), first, (first + 1) % self.pairs)


@dataclass(frozen=True, kw_only=True)
class StreamedCost:
    """The measurement; `peak_memory_bytes` is the process's largest resident set, the interpreter and torch included."""

    seconds: float
    passes: int
    peak_memory_bytes: int
    sherman_morrison_seconds: float
    textbook_seconds: float
    same_picks: bool

    @property
    def ratio_to_sherman_morrison(self) -> float:
        """How many times as long a pass for each pick takes that brings all scores up to date."""
        return self.sherman_morrison_seconds / self.seconds

    @property
    def ratio_to_textbook(self) -> float:
        """How many times as long a pass for each pick takes that computes φᵀV⁻¹φ."""
        return self.textbook_seconds / self.seconds


def measure_streamed(plan: StreamedPlan, progress: Progress) -> StreamedCost:
    """Measure with a file in a temporary folder, which goes away again; raises ActiveDPOError where there is no room."""
    with tempfile.TemporaryDirectory(prefix="activedpo-bench-") as folder:
        free = shutil.disk_usage(folder).free
        if free < 1.1 * plan.file_bytes:
            raise ActiveDPOError(
                f"the streamed measurement writes {plan.file_bytes / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB",
                hint="TMPDIR=/a/larger/disk activedpo bench select, or --no-streamed",
            )
        file = Path(folder, "features.safetensors")
        _write_features(plan, file, progress)
        progress.start("choose", plan.budget, "picks")
        command = [sys.executable, "-m", __name__, str(file), json.dumps(asdict(plan))]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        progress.stop()
        if ended.returncode:
            raise ActiveDPOError("the streamed choice failed", details=ended.stderr.strip().splitlines()[-1:])
        measured = json.loads(ended.stdout)
        inverse = inverse_design(plan.labelled_features(), plan.ridge)
        solved = inverse[0].clone()
        return StreamedCost(
            seconds=measured["seconds"],
            passes=measured["passes"],
            peak_memory_bytes=measured["peak_memory_bytes"],
            sherman_morrison_seconds=_seconds_for_all(plan, file, lambda part: (part @ solved).square_()),
            textbook_seconds=_seconds_for_all(plan, file, lambda part: scores_as_written(part, inverse)),
            same_picks=_are_best(plan, file, measured["rows"], progress),
        )


def _write_features(plan: StreamedPlan, file: Path, progress: Progress) -> None:
    entry = {"dtype": "F16", "shape": [plan.pairs, plan.proj_dim], "data_offsets": [0, plan.file_bytes]}
    header = json.dumps({"features": entry}).encode()
    progress.start("write features", plan.pairs, "rows")
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, plan.pairs, WRITTEN_AT_ONCE):
            count = min(WRITTEN_AT_ONCE, plan.pairs - start)
            stream.write(_randn(plan, count, "features", start).half().numpy().tobytes())
            progress.advance(count)
    progress.stop()


def _randn(plan: StreamedPlan, count: int, what: str, start: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(plan.seed, "bench", what, start))
    return torch.randn(count, plan.proj_dim, generator=generator)


def _seconds_for_all(plan: StreamedPlan, file: Path, work: Any) -> float:
    """How long it would take to read all pairs once for each pick and do `work` with them."""
    rows, count = plan.candidates(file), min(TIMED, plan.pairs)
    began = time.perf_counter()
    for start in range(0, count, WRITTEN_AT_ONCE):
        work(rows.read(start, min(start + WRITTEN_AT_ONCE, count)))
    return (time.perf_counter() - began) * plan.pairs / count * plan.budget


def _are_best(plan: StreamedPlan, file: Path, picks: list[int], progress: Progress) -> bool:
    """Whether each pick has the largest φᵀV⁻¹φ, V from scratch for each, over all pairs: scores of all picks in one pass."""
    rows, labelled = plan.candidates(file), plan.labelled_features()
    chosen = torch.cat([rows.take(torch.tensor([pick])) for pick in picks])
    design = plan.ridge * torch.eye(plan.proj_dim, dtype=torch.float64) + labelled.T @ labelled
    first_inverse, steps = torch.linalg.inv(design), []
    for feature in chosen:
        solved = torch.linalg.solve(design, feature)
        steps.append(solved / (1 + feature @ solved).sqrt())
        design += torch.outer(feature, feature)
    directions = torch.stack(steps[:-1]) if len(steps) > 1 else chosen[:0]
    best, its_row = (
        torch.full((len(picks),), -torch.inf, dtype=torch.float64),
        torch.zeros(len(picks), dtype=torch.int64),
    )
    order = {pick: place for place, pick in enumerate(picks)}
    progress.start("check picks", plan.pairs, "pairs")
    for start in range(0, plan.pairs, WRITTEN_AT_ONCE):
        part = rows.read(start, min(start + WRITTEN_AT_ONCE, plan.pairs))
        scores = scores_as_written(part, first_inverse)[:, None].repeat(1, len(picks))
        scores[:, 1:] -= (part @ directions.T).square_().cumsum(dim=1)
        for pick, place in order.items():
            if start <= pick < start + len(part):
                scores[pick - start, place + 1 :] = -torch.inf
        values, places = scores.max(dim=0)
        its_row = torch.where(values > best, places + start, its_row)
        best = torch.maximum(values, best)
        progress.advance(len(part))
    progress.stop()
    return its_row.tolist() == picks


def _main(file: Path, plan: StreamedPlan) -> None:
    began = time.perf_counter()
    choice = pooled_greedy(
        plan.candidates(file),
        plan.labelled_features(),
        plan.ridge,
        plan.budget,
        torch.arange(plan.pairs),
        PoolSize.within(plan.memory, plan.pairs, plan.proj_dim),
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    seconds = time.perf_counter() - began
    found = {"seconds": seconds, "rows": choice.rows, "passes": choice.passes, "peak_memory_bytes": peak}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), StreamedPlan(**json.loads(sys.argv[2])))
