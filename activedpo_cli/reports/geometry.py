"""What the features say about a batch: how alike its pairs are, and how many directions have been labelled."""

from statistics import fmean
from typing import TYPE_CHECKING

from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.reports.run_data import Geometry
from activedpo_cli.reports.sources import is_outdated
from activedpo_cli.statistics.summaries import five_numbers
from activedpo_cli.store.feature_files import LabelledColumns, read_columns, read_labelled
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COSINE_SAMPLE = 400
"""Pairs between which cosines are computed; from more candidates so many are drawn at random."""

RANDOM_BATCHES = 5
"""Random batches over which the effective rank is averaged."""

NOT_COMPUTED = "the method needs no features and none were computed"


def read_geometry(run: Run, iteration: int, manifests: dict[str, Manifest]) -> tuple[Geometry | None, str | None]:
    """The geometry of an iteration's batch, or the reason why there is none."""
    stem = f"iter-{iteration:03d}"
    manifest, featurize = manifests[f"{stem}/select"], manifests.get(f"{stem}/featurize")
    if featurize is None or is_outdated(manifest, f"{stem}/featurize", manifests):
        return None, "featurize was deleted or made anew since"
    if "features" not in featurize.settings.get("featurize.compute", ()):
        return None, NOT_COMPUTED
    folder = run.stage("featurize", iteration)
    if folder.missing_outputs():
        return None, "the feature files were deleted"
    normalise = str(manifest.settings.get("select.normalise"))
    features = read_columns(folder)["features"]
    if not features.isfinite().all():
        return None, "the features are not finite"
    tensors = run.stage("select", iteration).read_tensors("scores.safetensors")
    generator_seed = derive_seed(int(manifest.settings.get("seed", 0)), "report", iteration)
    labelled, reason = _labelled(run, iteration, manifest, manifests)
    if reason is not None:
        return None, reason
    history = _history(labelled, normalise, features)
    return _geometry(features, tensors["candidate_rows"], tensors["rank"], history, normalise, generator_seed), None


def _geometry(
    features: "Tensor", candidates: "Tensor", rank: "Tensor", history: "Tensor", normalise: str, seed: int
) -> Geometry:
    import torch

    from activedpo_cli.pairs.pair_features import pair_features
    from activedpo_cli.select.scores.batch import absolute_cosines, effective_rank

    def phi(rows: "Tensor") -> "Tensor":
        couples = candidates[rows]
        return pair_features(features, couples[:, 0], couples[:, 1], normalise)

    def in_v(rows: "Tensor") -> float:
        return effective_rank(torch.cat([history, phi(rows)]))

    generator = torch.Generator().manual_seed(seed)
    picked = torch.nonzero(rank > 0).flatten()
    sample = _drawn(len(candidates), COSINE_SAMPLE, generator)
    of_picked = picked[_drawn(len(picked), COSINE_SAMPLE, generator)]
    batches = [_drawn(len(candidates), len(picked), generator) for _ in range(RANDOM_BATCHES)]
    return Geometry(
        picked_cosines=five_numbers(absolute_cosines(phi(of_picked)).tolist()),
        pool_cosines=five_numbers(absolute_cosines(phi(sample)).tolist()),
        pool_sample=len(sample),
        labelled_pairs=len(history) + len(picked),
        effective_rank=in_v(picked),
        random_effective_rank=fmean(in_v(rows) for rows in batches),
    )


def _drawn(count: int, wanted: int, generator: "torch.Generator") -> "Tensor":
    """Rows drawn at random without repetition, at most all, in ascending order."""
    import torch

    return torch.randperm(count, generator=generator)[:wanted].sort().values


def _labelled(
    run: Run, iteration: int, select: Manifest, manifests: dict[str, Manifest]
) -> tuple[LabelledColumns | None, str | None]:
    """The pairs labelled earlier with the columns that *select* had of them, or the reason why these are not there.

    With `select.history: frozen` they are what each iteration computed before it chose, else what was computed again
    under the policy of this one.
    """
    from activedpo_cli.select.candidate_table import frozen_labelled

    if select.settings.get("select.history") != "frozen":
        return read_labelled(run.stage("featurize", iteration)), None
    for earlier in range(1, iteration):
        name = f"iter-{earlier:03d}/featurize"
        if name not in manifests or is_outdated(select, name, manifests):
            return None, f"{name}, whose features V keeps, was deleted or made anew since"
        if run.stage("featurize", earlier).missing_outputs():
            return None, f"the feature files of {name}, which V keeps, were deleted"
    labelled = frozen_labelled(run, iteration)
    if labelled is not None and "features" not in labelled.columns:
        return None, "an earlier iteration computed no features, and V keeps those of its pairs"
    return labelled, None


def _history(labelled: LabelledColumns | None, normalise: str, like: "Tensor") -> "Tensor":
    """φ of the pairs labelled earlier."""
    import torch

    from activedpo_cli.pairs.pair_features import pair_features

    if labelled is None:
        return like.new_zeros(0, like.shape[1], dtype=torch.float64)
    return pair_features(labelled.columns["features"], labelled.row_a, labelled.row_b, normalise)
