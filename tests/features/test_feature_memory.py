"""When memory runs out, or there is nothing to featurize."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import done, manifest, on, outputs, refused, rows
from small_runs import small_run

from activedpo_cli.gradients import featurizer


def test_no_usable_responses_is_no_failure_of_featurize(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    """Responses of one token each: cut off and dropped, or ended at once and empty."""
    run = small_run(tmp_path / "run", small_model, prompts_file, generate__max_new_tokens=1, generate__truncated="drop")
    done(*on(run, "generate"))
    done(*on(run, "featurize"))
    assert manifest(run, 1, "featurize")["summary"]["responses"] == 0
    assert "no pair" in refused(4, *on(run, "select"))


def limit(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Gradients of a response with this many tokens or more do not fit in memory, unless layers are checkpointed."""
    real = featurizer.response_gradients

    def limited(model: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        is_checkpointed = any("forward" in vars(module) for module in model.modules())
        if batch.input_ids.shape[1] >= tokens and not is_checkpointed:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, batch, *args, **kwargs)

    monkeypatch.setattr(featurizer, "response_gradients", limited)


def test_one_response_too_large_is_named_and_the_hint_goes_on(
    new_run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished units are kept, and checkpointing may be switched on in the middle."""
    done(*on(new_run, "generate"))
    units = sorted((new_run / "iter-001" / "generate").glob("responses-*.jsonl"))
    responses = [row for unit in units for row in rows(unit)]
    lengths = [len(row["prompt_token_ids"]) + len(row["token_ids"]) for row in responses]
    limit(monkeypatch, max(lengths))
    told = refused(1, *on(new_run, "featurize"))
    assert f"{max(lengths)} tokens long" in told
    assert responses[lengths.index(max(lengths))]["response_id"] in told
    assert "--featurize-gradient-checkpointing" in told
    kept = sorted(path.name for path in (new_run / "iter-001" / "featurize").glob("features-*"))
    done(*on(new_run, "featurize"), "--featurize-gradient-checkpointing")
    assert set(kept) < {path.name for path in (new_run / "iter-001" / "featurize").glob("features-*")}
    monkeypatch.undo()
    assert set(outputs(new_run, 1, "featurize")) == set(outputs(finished, 1, "featurize"))


def test_the_projections_error_is_left_open_where_it_can_not_be_measured(
    new_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(featurizer, "cosine_errors", too_large)
    done(*on(new_run, "generate"))
    done(*on(new_run, "featurize"))
    assert "projection" not in manifest(new_run, 1, "featurize")["summary"]
    assert not (new_run / "iter-001" / "featurize" / "projection.json").exists()
