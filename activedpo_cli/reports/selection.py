"""What the methods picked: scores, likeness, lengths, directions covered, and what two runs' batches have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from statistics import fmean

from activedpo_cli.base.records import FeatureRow, Response, SelectedPair
from activedpo_cli.reports.geometry import COSINE_SAMPLE, NOT_COMPUTED, RANDOM_BATCHES, read_geometry
from activedpo_cli.reports.messages import length_message, rank_message, score_message, similarity_message
from activedpo_cli.reports.page import Section, Table, table
from activedpo_cli.reports.plot import CANDIDATES, Panel, Plot, Series, boxes_by_iteration
from activedpo_cli.reports.run_data import Batch, RunData
from activedpo_cli.reports.seeds import look_note, run_looks
from activedpo_cli.reports.sources import is_outdated
from activedpo_cli.reports.wording import listed, median_and_range, number, share
from activedpo_cli.select.scores.overlap import chance_share, shared_share
from activedpo_cli.statistics.summaries import FiveNumbers, five_numbers
from activedpo_cli.store.manifest import Manifest, digest_of
from activedpo_cli.store.run import Run

Couple = tuple[str, str]


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
    ids = {row.row: row.response_id for row in rows_of}  # the numbers of excluded responses are missing
    rows = run.stage("select", iteration).read_tensors("scores.safetensors")["candidate_rows"].tolist()
    return [(ids[a], ids[b]) for a, b in rows]


def _lengths(couples: Sequence[Couple], lengths: Mapping[str, int]) -> list[int]:
    return [lengths[name] for couple in couples for name in couple if name in lengths]


def _identity(run: Run, iteration: int, manifests: dict[str, Manifest], couples: list[Couple] | None) -> str | None:
    """What tells the candidates from those of another run; ids repeat, so it holds the digest of the responses too."""
    generate = manifests.get(f"iter-{iteration:03d}/generate")
    if couples is None or generate is None:
        return None
    texts = [generate.digest]
    if run.drawn_prompts(iteration)["source"] == "pool":
        if "pool" not in manifests:
            return None
        texts = [manifests["pool"].digest]  # which of its prompts were drawn shows in the couples
    return digest_of([texts, sorted(couples)])


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Two batches from the same candidates: the pairs in both, as a share of the smaller one, and the share by chance."""

    sources: tuple[str, str]
    runs: tuple[str, str]
    iteration: int
    candidates: int
    in_both: int
    share: float
    by_chance: float


def overlaps(runs: Sequence[RunData]) -> list[Overlap]:
    """Every two runs and every iteration in which they had the same pairs of the same texts to pick from."""
    found = []
    for first, second in combinations(runs, 2):
        for ours, theirs in product(first.batches, second.batches):
            is_one_pool = ours.candidates_digest is not None and ours.candidates_digest == theirs.candidates_digest
            if ours.iteration != theirs.iteration or not is_one_pool:
                continue
            a, b = frozenset(ours.picked), frozenset(theirs.picked)
            overlap = Overlap(
                sources=(f"{first.name}/{ours.source}", f"{second.name}/{theirs.source}"),
                runs=(first.name, second.name),
                iteration=ours.iteration,
                candidates=ours.candidates,
                in_both=len(a & b),
                share=shared_share(a, b),
                by_chance=chance_share(len(a), len(b), ours.candidates),
            )
            found.append(overlap)
    return found


def selection_section(runs: Sequence[RunData]) -> Section | None:
    """Diagnostics of every batch; None where nothing was selected."""
    if not any(run.batches for run in runs):
        return None
    plots = [_score_plot(runs), _cosine_plot(runs), _rank_plot(runs), _length_plot(runs)]
    tables = [_table(runs), _overlap_table(runs)]
    return Section(
        anchor="selection",
        title="What was selected",
        sentences=_sentences(runs),
        plots=[plot for plot in plots if plot.panels],
        tables=[found for found in tables if found.rows],
    )


def _sentences(runs: Sequence[RunData]) -> list[str]:
    sentences = []
    reasons: dict[str, list[str]] = {}
    for run in runs:
        for batch in run.batches:
            if batch.no_geometry:
                reasons.setdefault(batch.no_geometry, []).append(f"{run.name} iteration {batch.iteration}")
    for reason, where in reasons.items():
        names = listed(where) if reason != NOT_COMPUTED else listed(list(dict.fromkeys(w.split(" ")[0] for w in where)))
        sentences.append(f"No likeness and no effective rank for {names}: {reason}.")
    scoreless = [run.name for run in runs if run.batches and not any(batch.scores for batch in run.batches)]
    if scoreless:
        sentences.append(f"No scores for {listed(scoreless)}: the method gives none.")
    return sentences


def _score_plot(runs: Sequence[RunData]) -> Plot:
    panels = [
        Panel(
            title=run.name,
            x_label="rank within the batch",
            y_label="score when picked",
            series=[
                Series(
                    label=f"iteration {batch.iteration}",
                    x=[float(rank) for rank in range(1, len(batch.scores) + 1)],
                    y=list(batch.scores),
                    sources=[f"{run.name}/{batch.source}"],
                    shade=_shade(batch, run.batches),
                    marked=[],
                )
                for batch in run.batches
                if batch.scores
            ],
        )
        for run in runs
    ]
    return Plot(
        name="score-decay",
        message=score_message(runs),
        title="Score by rank",
        caption="The method's value of each pair at the moment it was picked, best first; early iterations pale, late ones "
        "strong. A curve that stays level says that the batch could have been larger, a steep one that the last labels "
        "bought little. Levels of different methods do not compare.",
        alternative="Score against rank, a line for each iteration.",
        panels=[panel for panel in panels if panel.series],
    )


def _cosine_plot(runs: Sequence[RunData]) -> Plot:
    panels = [
        _picked_and_pool(
            run,
            "|cos| between two pairs",
            [(b, b.geometry.picked_cosines, b.geometry.pool_cosines) for b in run.batches if b.geometry],
        )
        for run in runs
    ]
    return Plot(
        name="similarity",
        message=similarity_message(runs),
        title="Likeness of picked pairs",
        caption="Absolute cosine between φ of every two picked pairs, beside that of every two candidates (of "
        f"{COSINE_SAMPLE} drawn with the run's seed where there are more). Boxes hold the middle half, bars are medians, "
        "whiskers go from 5 % to 95 %. Lower than the pool means that the batch repeats itself less than chance would.",
        alternative="Boxes of cosines among picked pairs and among candidates, by iteration.",
        has_one_scale=True,
        panels=[panel for panel in panels if panel.series],
    )


def _length_plot(runs: Sequence[RunData]) -> Plot:
    panels = [
        _picked_and_pool(run, "tokens of a response", [(b, b.picked_tokens, b.pool_tokens) for b in run.batches])
        for run in runs
    ]
    return Plot(
        name="lengths",
        message=length_message(runs),
        title="Lengths of picked responses",
        caption="Tokens of the responses in picked pairs, beside those in all candidates; a response counts once for each "
        "of its pairs. Boxes as above. A method that prefers one length shows here.",
        alternative="Boxes of response lengths in picked pairs and in all candidates, by iteration.",
        has_one_scale=True,
        panels=[panel for panel in panels if panel.series],
    )


def _picked_and_pool(
    run: RunData, label: str, rows: Sequence[tuple[Batch, FiveNumbers | None, FiveNumbers | None]]
) -> Panel:
    both = [(b.iteration, picked, pool, f"{run.name}/{b.source}") for b, picked, pool in rows if picked and pool]
    return boxes_by_iteration(
        run.name,
        label,
        {
            "picked": [(iteration, picked, source) for iteration, picked, _, source in both],
            CANDIDATES: [(iteration, pool, source) for iteration, _, pool, source in both],
        },
    )


def _rank_plot(runs: Sequence[RunData]) -> Plot:
    series = []
    looks = run_looks(runs)
    for run, look in zip(runs, looks, strict=True):
        known = [(batch, batch.geometry) for batch in run.batches if batch.geometry]
        x = [float(geometry.labelled_pairs) for _, geometry in known]
        sources = [f"{run.name}/{batch.source}" for batch, _ in known]
        ranks = [geometry.effective_rank for _, geometry in known]
        by_chance = [geometry.random_effective_rank for _, geometry in known]
        name = f"{run.name}, random last batch"
        if known:
            line = Series(label=run.name, x=x, y=list(ranks), sources=sources, colour=look.colour, group=look.group)
            faint = replace(
                line,
                label=name,
                y=list(by_chance),
                is_faint=True,
                group=look.group and f"{look.group}, random last batch",
            )
            series += [line, faint]
    panel = Panel(title="effective rank of V", x_label="pairs in V", y_label="directions", series=series)
    return Plot(
        name="effective-rank",
        message=rank_message(runs),
        title="Directions covered by labels",
        caption="The effective rank of V without its ridge: e^H(p), p being the eigenvalues of Σ φφᵀ divided by their sum "
        "and H the entropy, over all pairs labelled earlier and those just picked, φ under the policy of that iteration. "
        "It is the number of pairs if all are at right angles, and 1 if all point one way. The thin dotted line is the "
        f"same with the last batch drawn at random ({RANDOM_BATCHES} draws with the run's seed, averaged)."
        + _frozen_note(runs)
        + look_note(looks),
        alternative="Effective rank against the number of labelled pairs.",
        panels=[panel] if series else [],
    )


def _frozen_note(runs: Sequence[RunData]) -> str:
    """A sentence for the caption where the history of a run was frozen."""
    names = [run.name for run in runs if "frozen" in run.settings.get("select.history", [])]
    if not names:
        return ""
    return f" Pairs labelled earlier keep the φ by which they were chosen in {listed(names)} (select.history: frozen)."


def _shade(batch: Batch, batches: Sequence[Batch]) -> float:
    return batches.index(batch) / max(1, len(batches) - 1)


def _table(runs: Sequence[RunData]) -> Table:
    columns = ["run", "iteration", "method", "picked", "candidates", "first score", "last score", "|cos| of picked"]
    columns += [
        "|cos| of candidates",
        "effective rank",
        "with a random batch",
        "tokens of picked",
        "tokens of candidates",
    ]
    return table(
        "Every batch; medians with the middle half in brackets",
        columns,
        [[run.name, *_cells(batch)] for run in runs for batch in run.batches],
        is_folded=True,
    )


def _cells(batch: Batch) -> list[str]:
    geometry = batch.geometry
    return [
        str(batch.iteration),
        batch.method,
        str(len(batch.picked)),
        str(batch.candidates),
        number(batch.scores[0]) if batch.scores else "",
        number(batch.scores[-1]) if batch.scores else "",
        median_and_range(geometry.picked_cosines, 3) if geometry else "",
        median_and_range(geometry.pool_cosines, 3) if geometry else "",
        f"{number(geometry.effective_rank, 1)} of {geometry.labelled_pairs}" if geometry else "",
        number(geometry.random_effective_rank, 1) if geometry else "",
        median_and_range(batch.picked_tokens, 1),
        median_and_range(batch.pool_tokens, 1),
    ]


def _overlap_table(runs: Sequence[RunData]) -> Table:
    rows = [
        [
            f"{row.runs[0]} and {row.runs[1]}",
            str(row.iteration),
            str(row.candidates),
            str(row.in_both),
            share(row.share),
            share(row.by_chance),
        ]
        for row in overlaps(runs)
    ]
    columns = ["runs", "iteration", "candidates", "picked by both", "share of the smaller batch", "by chance"]
    return table("Pairs that two runs picked from the same candidates", columns, rows)
