"""What an iteration's method picked, and how that differs from what it could have picked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from activedpo_cli.base.records import FeatureRow, Response, SelectedPair
from activedpo_cli.reports.geometry import Geometry, read_geometry
from activedpo_cli.reports.sources import is_outdated
from activedpo_cli.statistics.summaries import FiveNumbers, five_numbers
from activedpo_cli.store.manifest import Manifest, digest_of
from activedpo_cli.store.run import Run

Couple = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The pairs picked in one iteration, best first.

    Attributes:
        scores: The method's value of each; None where the method gives none.
        candidates: How many pairs there were to pick from.
        candidates_digest: Equal for two batches if and only if they were picked from the same pairs of the same texts.
        picked_tokens: Lengths of the picked pairs' responses, a response counted once for each of its pairs.
        pool_tokens: The same over all candidates.
        geometry: What the features say; None, with the reason in `no_geometry`, where there are none.

    """

    iteration: int
    source: str
    method: str
    picked: list[str]
    scores: list[float] | None
    candidates: int
    candidates_digest: str | None
    picked_tokens: FiveNumbers | None
    pool_tokens: FiveNumbers | None
    picked_tokens_mean: float | None
    pool_tokens_mean: float | None
    geometry: Geometry | None
    no_geometry: str | None


def read_batch(
    run: Run, iteration: int, manifests: dict[str, Manifest], responses: Sequence[Response] | None
) -> Batch | None:
    """The batch of an iteration, None where *select* is not finished; what is gone or outdated is left out."""
    stem = f"iter-{iteration:03d}"
    manifest = manifests.get(f"{stem}/select")
    if manifest is None:
        return None
    pairs = run.stage("select", iteration).read_rows("selection.jsonl", SelectedPair)
    scores = [pair.score for pair in pairs]
    couples = candidate_couples(run, iteration, manifests)
    lengths = {row.response_id: len(row.token_ids) for row in responses or ()}
    picked_lengths = _lengths([(pair.response_a_id, pair.response_b_id) for pair in pairs], lengths)
    pool_lengths = _lengths(couples or [], lengths)
    geometry, reason = read_geometry(run, iteration, manifests)
    return Batch(
        iteration=iteration,
        source=f"{stem}/select",
        method=str(manifest.summary.get("method", manifest.settings.get("select.method"))),
        picked=[pair.pair_id for pair in pairs],
        scores=scores if any(scores) else None,
        candidates=int(manifest.summary["candidates"]),
        candidates_digest=_identity(run, iteration, manifests, couples),
        picked_tokens=five_numbers(picked_lengths),
        pool_tokens=five_numbers(pool_lengths),
        picked_tokens_mean=fmean(picked_lengths) if picked_lengths else None,
        pool_tokens_mean=fmean(pool_lengths) if pool_lengths else None,
        geometry=geometry,
        no_geometry=reason,
    )


def candidate_couples(run: Run, iteration: int, manifests: dict[str, Manifest]) -> list[Couple] | None:
    """The response ids of every candidate pair, in the order of `scores.safetensors`; None where they are not known."""
    stem = f"iter-{iteration:03d}"
    manifest = manifests.get(f"{stem}/select")
    if manifest is None or f"{stem}/featurize" not in manifests:
        return None
    if is_outdated(manifest, f"{stem}/featurize", manifests):
        return None
    rows_of = run.stage("featurize", iteration).read_rows("rows.jsonl", FeatureRow)
    ids = {row.row: row.response_id for row in rows_of}  # excluded responses leave holes
    rows = run.stage("select", iteration).read_tensors("scores.safetensors")["candidate_rows"].tolist()
    return [(ids[a], ids[b]) for a, b in rows]


def _lengths(couples: Sequence[Couple], lengths: Mapping[str, int]) -> list[int]:
    return [lengths[name] for couple in couples for name in couple if name in lengths]


def _identity(run: Run, iteration: int, manifests: dict[str, Manifest], couples: list[Couple] | None) -> str | None:
    """Ids repeat from run to run, so the digests of the responses belong to it."""
    generate = manifests.get(f"iter-{iteration:03d}/generate")
    if couples is None or generate is None:
        return None
    texts = [generate.digest]
    if run.drawn_prompts(iteration)["source"] == "pool":
        if "pool" not in manifests:
            return None
        texts = [manifests["pool"].digest]  # the prompts drawn show in the couples
    return digest_of([texts, sorted(couples)])
