"""Compare this project's features with other ways to collect per-response gradients, all in one process.

What is measured: a random Llama of 15.5 M parameters with LoRA (r = 32, all linear layers, 98 matrices, 1.63 M
parameters, A and B random) in float32 on the CPU, and 64 responses of 64 random tokens to prompts of 64. The gradient
of a response is that of the sum of its tokens' log-probabilities with respect to all LoRA matrices; d = 8192.

Install the peers beside this project, which depends on none of them, in an environment of their own. Their
requirements are left out (--no-deps) where they would bring other builds of torch:

    python3 -m venv peers && . peers/bin/activate
    pip install -e . 'torch==2.13.0'
    pip install --no-deps traker==0.3.2 bergson==2.5.1 opacus==1.6.0 opt-einsum==3.4.0
    pip install jinja2 ml_dtypes natsort petname pyarrow scipy simple-parsing tqdm

    python tests/benchmarks/peers.py --table --output peers.json    # about seven minutes on 2 cores
    python tests/benchmarks/peers.py --quick                        # less than a minute: do all of them run?

A peer that can't be imported is reported as not installed. Repetitions go round all methods in turn. "× plain" is the
ratio of medians, "fastest" that of the fastest repetitions: where they differ, something else used the processor, and
the second is the one to believe. "Timed on" says how many responses were really measured; seconds, a median, are
scaled to all of them. bergson global and the LESS-like loop draw a dense matrix anew for every 16 responses, the
default of both, so that larger batches would make them cheaper.

The error is the root mean square, over all pairs of the responses timed, of the difference between the cosine of two
features and that of the exact gradients, which come from the loop one by one. A dense random projection to dim numbers
has about 1/√dim where gradients are nearly orthogonal, as these are.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported

import torch
from peer_bergson import prepare_bergson
from peer_methods import (
    prepare_less_like,
    prepare_one_by_one,
    prepare_opacus,
    prepare_ours,
    prepare_own_plain,
    prepare_plain,
    prepare_torch_func,
)
from peer_problem import Collect, Method, Pieces, Problem, random_problem
from torch import Tensor

PLAIN = "plain forward + backward"
EXACT = "autograd, one by one, no projection"
PACKAGES = ("torch", "transformers", "peft", "traker", "bergson", "opacus", "opt-einsum", "datasets", "numpy")


def all_methods(responses: int, repetitions: int) -> list[Method]:
    """Quick ones first; those that draw a dense matrix for each batch are measured once, on 16 responses."""
    often = partial(Method, repetitions=repetitions, responses=responses)
    once = partial(Method, repetitions=1, responses=min(16, responses), is_warmed_up=False)
    return [
        often(PLAIN, prepare_plain),
        often("the same, written apart", prepare_own_plain),
        often("activedpo, factored", partial(prepare_ours, "factored")),
        often("activedpo, count-sketch", partial(prepare_ours, "count-sketch")),
        often(EXACT, prepare_one_by_one, is_projected=False),
        often("opacus GradSampleModule, no projection", prepare_opacus, is_projected=False),
        often("torch.func vmap(grad), no projection", prepare_torch_func, is_projected=False),
        often("bergson per_module", partial(prepare_bergson, "per_module")),
        once("bergson global", partial(prepare_bergson, "global")),
        once("LESS-like loop, traker BasicProjector", prepare_less_like),
    ]


def main() -> None:
    """Measure, print, write."""
    options = parse_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    problem = random_problem(
        responses=16 if options.quick else 64,
        prompt_tokens=64,
        response_tokens=64,
        proj_dim=512 if options.quick else 8192,
    )
    methods = all_methods(len(problem.token_ids), repetitions=2 if options.quick else 5)
    for method in methods:
        prepare(method, problem)
    measure(methods)
    rows = [row(method, methods, len(problem.token_ids)) for method in methods]
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    print(", ".join(f"{name} {value}" for name, value in setting(problem).items()), end="\n\n")
    print(as_table(rows, is_markdown=options.table))
    if options.output:
        report = {"versions": versions(), "setting": setting(problem), "rows": rows}
        options.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--output", type=Path, metavar="FILE.json", help="write the table, every time and versions here"
    )
    parser.add_argument("--table", action="store_true", help="print a markdown table")
    parser.add_argument(
        "--quick", action="store_true", help="16 responses, d = 512, twice at most: does everything run?"
    )
    parser.add_argument("--threads", type=int, help="torch.set_num_threads; torch's own choice without")
    return parser.parse_args()


def prepare(method: Method, problem: Problem) -> None:
    """Load the peer and a model, and run the first batch unmeasured, or note what can't be imported."""
    try:
        method.collect = method.prepare(problem.first(method.responses))
    except ImportError as error:
        method.missing = str(error)
        return
    if method.is_warmed_up:
        next(method.collect())


def measure(methods: list[Method]) -> None:
    """Time each method's repetitions in alternation; the first keeps the features, to compare their cosines.

    Where those are whole gradients, the first is not counted: fresh memory for all of them takes longer than the work.
    """
    for repetition in range(max(method.repetitions for method in methods)):
        for method in methods:
            if method.collect is None or repetition >= method.repetitions:
                continue
            print(f"{repetition + 1}/{method.repetitions} {method.name}", file=sys.stderr)
            seconds = timed_pass(method, method.collect, keeps_features=repetition == 0)
            if method.is_projected or repetition > 0:
                method.seconds.append(seconds)


def timed_pass(method: Method, collect: Collect, *, keeps_features: bool) -> float:
    """Seconds of one pass over the responses; notes the features' inner products where they are kept."""
    start = time.perf_counter()
    kept = list(collect()) if keeps_features else drain(collect())
    seconds = time.perf_counter() - start
    if any(kept):
        method.output_dim = sum(piece.shape[1] for piece in kept[0])
        method.gram = gram_matrix(kept)
    return seconds


def drain(batches: Iterator[Pieces]) -> list[Pieces]:
    """Go through all batches and keep none."""
    for _ in batches:
        pass
    return []


def gram_matrix(batches: list[Pieces]) -> Tensor:
    """Inner products of all responses' features, in float64, one block of columns at a time."""
    blocks = (torch.cat(pieces).double() for pieces in zip(*batches, strict=True))
    return sum((block @ block.T for block in blocks), start=torch.zeros((), dtype=torch.float64))


def cosine_error(gram: Tensor, exact: Tensor) -> float:
    """Root mean square over pairs i < j of the difference of cosines."""
    first, second = torch.triu_indices(len(gram), len(gram), offset=1)
    difference = cosines(gram) - cosines(exact[: len(gram), : len(gram)])
    return float(difference[first, second].square().mean().sqrt())


def cosines(gram: Tensor) -> Tensor:
    """Inner products of the features divided by their lengths."""
    lengths = gram.diagonal().sqrt()
    return gram / torch.outer(lengths, lengths)


def row(method: Method, methods: list[Method], responses: int) -> dict[str, Any]:
    """One line of the table: seconds for all responses, the ratio to plain, and the error of the cosines."""
    if method.missing is not None:
        return {"method": method.name, "missing": method.missing}
    exact = next(other for other in methods if other.name == EXACT).gram
    seconds = median(method.seconds) * responses / method.responses
    error = cosine_error(method.gram, exact) if method.gram is not None and exact is not None else None
    scaled_error = None
    if method.is_projected and error is not None and method.output_dim is not None:
        scaled_error = error * math.sqrt(method.output_dim)
    return {
        "method": method.name,
        "seconds": seconds,
        "ratio_to_plain": ratio_to_plain(median, method, methods),
        "ratio_to_plain_fastest": ratio_to_plain(min, method, methods),
        "output_dim": method.output_dim,
        "cosine_rmse": error,
        "cosine_rmse_times_sqrt_dim": scaled_error,
        "responses_timed": method.responses,
        "measured_seconds": method.seconds,
    }


def ratio_to_plain(typical: Callable[[list[float]], float], method: Method, methods: list[Method]) -> float | None:
    """Time for a response by the method over that of a plain pass."""
    plain = next(other for other in methods if other.name == PLAIN)
    if not plain.seconds:
        return None
    return typical(method.seconds) / method.responses / (typical(plain.seconds) / plain.responses)


def as_table(rows: list[dict[str, Any]], *, is_markdown: bool) -> str:
    """The rows as text, aligned, or in markdown."""
    header = ["method", "× plain", "fastest", "seconds", "output dim", "cosine RMSE", "RMSE·√dim", "timed on", "times"]
    lines = [header, *(cells(entry) for entry in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    if not is_markdown:
        return "\n".join("  ".join(line).rstrip() for line in padded)
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def cells(entry: dict[str, Any]) -> list[str]:
    """One row as text."""
    if "missing" in entry:
        return [f"{entry['method']}: not installed ({entry['missing']})", *[""] * 8]

    def number(name: str, form: str) -> str:
        return "–" if entry[name] is None else format(entry[name], form)

    return [
        str(entry["method"]),
        number("ratio_to_plain", ".2f"),
        number("ratio_to_plain_fastest", ".2f"),
        number("seconds", ".2f"),
        number("output_dim", "d"),
        number("cosine_rmse", ".2g"),
        number("cosine_rmse_times_sqrt_dim", ".2f"),
        number("responses_timed", "d"),
        str(len(entry["measured_seconds"])),
    ]


def versions() -> dict[str, str]:
    """Versions of Python and of every package that takes part."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def setting(problem: Problem) -> dict[str, int]:
    """The sizes that decide the times."""
    responses, tokens = problem.token_ids.shape
    return {
        "responses": responses,
        "prompt tokens": problem.prompt_tokens,
        "response tokens": tokens - problem.prompt_tokens,
        "batch": problem.batch_size,
        "d": problem.proj_dim,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
