"""What log-probabilities say of an adapter: each case made by hand, with the noise of another engine."""

import random

import pytest

from activedpo_cli.generate.backends._probe import Comparison, Limits, judged, rounding_of

TOKENS = 380
TOLERANCE = 0.1


def comparison(
    *,
    effect: float,
    noise: float = 0.0,
    applied: float = 1.0,
    other: float = 0.0,
    base_known: bool = True,
    seed: int = 7,
) -> Comparison:
    """A server that applies so much of an adapter, and so much of another one; all by the standard deviation, in nats."""
    chance = random.Random(seed)

    def rounded(values: list[float]) -> list[float]:
        return [value + chance.gauss(0, noise) for value in values]

    base = [-chance.expovariate(0.5) for _ in range(TOKENS)]
    direction, stranger = ([chance.gauss(0, effect) for _ in range(TOKENS)] for _ in range(2))
    policy = [b + d for b, d in zip(base, direction, strict=True)]
    served = [b + applied * d + other * s for b, d, s in zip(base, direction, stranger, strict=True)]
    served_base, own_base = rounded(base), rounded(base)
    rounding = rounding_of(served_base, own_base, Limits(TOLERANCE, 1e-6))
    own = own_base if effect == 0 else rounded(policy)
    return Comparison(rounded(served), own, own_base, served_base if base_known else None, rounding)


@pytest.mark.parametrize("base_known", [True, False])
@pytest.mark.parametrize(
    ("case", "finding"),
    [
        ({"effect": 1.0}, "fits"),
        ({"effect": 1.0, "noise": 0.03}, "fits"),
        ({"effect": 0.1, "noise": 0.02}, "fits"),
        ({"effect": 1.0, "noise": 0.03, "applied": 0.0}, "not applied"),
        ({"effect": 0.1, "noise": 0.02, "applied": 0.0}, "not applied"),
        ({"effect": 0.05, "noise": 0.03, "applied": 0.0}, "can't be told"),
        ({"effect": 1.0, "noise": 0.03, "applied": 0.5}, "in part"),
        ({"effect": 0.1, "noise": 0.01, "applied": 0.5}, "in part"),
        ({"effect": 1.0, "noise": 0.03, "applied": 2.0}, "in part"),
        ({"effect": 0.001, "noise": 0.03}, "can't be told"),
        ({"effect": 0.001, "noise": 0.03, "applied": 0.0}, "can't be told"),
        ({"effect": 0.0, "noise": 0.03}, "fits"),
        ({"effect": 0.0, "noise": 0.5}, "differs"),
        ({"effect": 1.0, "applied": 0.0, "other": 1.0}, "differs"),
        ({"effect": 1.0, "noise": 0.2}, "differs"),
    ],
)
def test_what_is_found(case: dict[str, float], finding: str, base_known: bool) -> None:
    assert judged(comparison(**case, base_known=base_known), TOLERANCE) == finding


def test_another_adapter_below_the_tolerance_is_found_by_the_servers_own_base() -> None:
    case = comparison(effect=0.05, noise=0.002, applied=0.0, other=1.0)
    assert case.mean < TOLERANCE
    assert judged(case, TOLERANCE) == "differs"


def test_numbers_of_a_finding() -> None:
    case = Comparison([-1.0, -2.0, -4.0], [-1.0, -2.5, -3.0], [-1.5, -2.5, -3.5])
    assert case.mean == pytest.approx(0.5)
    assert case.worst == pytest.approx(1.0)
    assert case.from_base == pytest.approx(0.5)
    assert case.effect == pytest.approx(1 / 3)
    share = case.share()
    assert share is not None
    assert share.value == pytest.approx((0.5 * 0.5 + 0.5 * 0 - 0.5 * 0.5) / (0.25 + 0.25))


def test_what_is_no_number_fits_nothing() -> None:
    assert judged(Comparison([float("nan")] * 3, [-1.0, -2.0, -3.0], [-1.0, -2.0, -3.0]), TOLERANCE) == "differs"


@pytest.mark.parametrize("seed", range(30))
def test_sound_servers_are_never_stopped(seed: int) -> None:
    """Whatever the adapter's effect beside the rounding of both sides, down to none that could be seen."""
    for effect in (0.001, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5, 2.0):
        for noise in (1e-6, 0.003, 0.03):
            assert judged(comparison(effect=effect, noise=noise, seed=seed), TOLERANCE) in ("fits", "can't be told")
