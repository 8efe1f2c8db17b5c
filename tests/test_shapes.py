"""Tests check the shapes in annotations (`--jaxtyping-packages` in pyproject.toml); without jaxtyping they are types."""

import sys
from importlib import util
from unittest import mock

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from activedpo_cli.base import shapes
from activedpo_cli.pairs.pair_features import pair_features
from activedpo_cli.select.methods.base import Candidates, take_in_order

ROWS = torch.arange(3)


def test_shapes_are_those_of_jaxtyping() -> None:
    assert shapes.Float is Float


def test_a_wrong_shape_is_refused_in_core() -> None:
    with pytest.raises(TypeCheckError):
        pair_features(torch.ones(4, 2), ROWS, ROWS[:2])
    with pytest.raises(TypeCheckError):
        pair_features(torch.ones(4), ROWS, ROWS)


def test_a_wrong_shape_is_refused_in_acquisition() -> None:
    with pytest.raises(TypeCheckError):
        take_in_order(ROWS, ROWS[:2], 1)
    with pytest.raises(TypeCheckError):
        Candidates(row_a=ROWS, row_b=ROWS, prompt_index=ROWS.float())


def test_without_jaxtyping_they_are_the_array_type() -> None:
    spec = util.spec_from_file_location("shapes_alone", shapes.__file__)
    assert spec
    assert spec.loader
    alone = util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"jaxtyping": None}):
        spec.loader.exec_module(alone)
    assert alone.Float[Tensor, "n d"] is alone.Int[Tensor, ""] is alone.Bool[Tensor, "n"] is Tensor
    assert alone.Float[Tensor, "n d"] | None == Tensor | None
