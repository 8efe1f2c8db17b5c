"""φ of pairs straight from the safetensors files of a run, each response's features at unit norm."""

from pathlib import Path

import torch
from command_line import rows
from safetensors.torch import load_file


def phi(run: Path, iteration: int, pair_id: str) -> torch.Tensor:
    """φ of a pair of an iteration."""
    folder = run / f"iter-{iteration:03d}" / "featurize"
    units = [load_file(path)["features"] for path in sorted(folder.glob("features-*.safetensors"))]
    place = {row["response_id"]: row["row"] for row in rows(folder / "rows.jsonl")}
    stem, _, couple = pair_id.rpartition("/")
    first, second = (place[f"{stem}/{name}"] for name in couple.split("-"))
    return _difference(torch.cat(units), first, second)


def labelled_phi(run: Path, iteration: int) -> torch.Tensor:
    """φ of the pairs labelled before an iteration, in the order of `labelled.jsonl`."""
    folder = run / f"iter-{iteration:03d}" / "featurize"
    features = load_file(folder / "labelled.safetensors")["features"]
    return torch.stack([_difference(features, row["row_a"], row["row_b"]) for row in rows(folder / "labelled.jsonl")])


def _difference(features: torch.Tensor, first: int, second: int) -> torch.Tensor:
    one, other = features[first].double(), features[second].double()
    return one / one.norm() - other / other.norm()
