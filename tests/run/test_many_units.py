"""Many prompts in many units, by a model that answers at once: looking at units grows with their number, a claim does not.

pytest -n0 -s -m slow tests/run/test_many_units.py
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import done, make_partial, on
from small_runs import small_run

from activedpo_cli.engine import units
from activedpo_cli.generate.backends import transformers_backend
from activedpo_cli.generate.backends.base import SampledResponse

FEW, MANY, RESPONSES, UNIT = 5_000, 20_000, 3, 16


@pytest.fixture
def answering_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def sample_unit(model: Any, prompts: Sequence[Any], *, sampling: Any, **_: Any) -> list[list[SampledResponse]]:
        answer = SampledResponse(token_ids=list(range(50, 70)), finish_reason="length")
        return [[answer] * sampling.num_responses for _ in prompts]

    monkeypatch.setattr(transformers_backend, "sample_unit", sample_unit)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(place: Path, model: Path, prompts: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds of each command on a run of so many prompts, and of the claim of one unit at the beginning and the end."""
    place.mkdir()
    file = place / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Question {n}: what?"}) + "\n" for n in range(prompts)))
    own = {"generate__num_prompts": None, "generate__num_responses": RESPONSES, "generate__unit_size": UNIT}
    run = small_run(place / "run", model, file, **own)
    claims: list[float] = []

    class Claim:
        """A claim that says how long it took to be had and given back."""

        def __init__(self, path: Path) -> None:
            self.claim, self.seconds = CLAIMED(path), 0.0

        def __enter__(self) -> bool:
            began = time.perf_counter()
            is_ours = self.claim.__enter__()
            self.seconds = time.perf_counter() - began
            return is_ours

        def __exit__(self, *error: Any) -> None:
            began = time.perf_counter()
            self.claim.__exit__(*error)
            claims.append(self.seconds + time.perf_counter() - began)

    monkeypatch.setattr(units, "claimed", Claim)
    generate = on(run, "generate", "--quiet")
    whole = seconds(lambda: done(*generate))
    tenth = len(claims) // 10
    assert len(claims) == -(-(prompts - 4) // UNIT)
    times = {
        "sampling": whole,
        "a claim, first": sorted(claims[:tenth])[tenth // 2],
        "a claim, last": sorted(claims[-tenth:])[tenth // 2],
        "up to date": min(seconds(lambda: done(*generate)) for _ in range(3)),
        "status": min(seconds(lambda: done(*on(run, "status"))) for _ in range(3)),
    }
    make_partial(run, 1, "generate")
    return times | {"finishing": seconds(lambda: done(*generate))}


CLAIMED = units.claimed


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("answering_at_once")
def test_growth(tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = measured(tmp_path / "few", small_model, FEW, monkeypatch)
    many = measured(tmp_path / "many", small_model, MANY, monkeypatch)
    for name in few:
        print(f"{name}: {few[name]:.4f} s of {FEW:,} prompts, {many[name]:.4f} s of {MANY:,}")
    for name in ("up to date", "status"):
        assert many[name] < 1
    linear = 1.5 * MANY / FEW
    assert many["sampling"] < linear * few["sampling"]
    assert many["finishing"] < linear * few["finishing"]
    for place in ("first", "last"):
        assert many[f"a claim, {place}"] < 2 * few["a claim, first"], "claims grow with the number of units"
