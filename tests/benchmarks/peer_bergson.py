"""Features by bergson for `peers.py`, called from Python as its own `build` does, and read from the files it writes."""

import logging
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from peer_problem import Collect, Pieces, Problem, policy


def per_module_side(matrices: int, proj_dim: int) -> int:
    """The smallest p with `matrices` · p² ≥ proj_dim, as each LoRA matrix gets p × p features of its own."""
    return math.isqrt(math.ceil(proj_dim / matrices) - 1) + 1


def prepare_bergson(target: Literal["per_module", "global"], problem: Problem) -> Collect:
    """bergson's hooks on the LoRA matrices; projections are made once where bergson keeps them (per_module).

    As in its own set-up, the embeddings' weights are what starts the graph, and logits are those of all tokens.
    """
    from bergson.collector.collector import CollectorComputer
    from bergson.collector.gradient_collectors import GradientCollector
    from bergson.config import IndexConfig
    from bergson.data import allocate_batches, load_gradients
    from bergson.gradients import GradientProcessor
    from bergson.utils.peft import detect_peft_modules
    from datasets import Dataset, disable_progress_bars

    logging.disable(logging.INFO)  # it announces each module on standard output
    disable_progress_bars()
    model = policy()
    model.get_input_embeddings().weight.requires_grad_(True)
    modules = detect_peft_modules(model)
    side = per_module_side(len(modules), problem.proj_dim) if target == "per_module" else problem.proj_dim
    processor = GradientProcessor(projection_dim=side, projection_target=target)
    responses, tokens = problem.token_ids.shape
    labels = problem.token_ids.clone()
    labels[:, : problem.prompt_tokens] = -100
    data = Dataset.from_dict({"input_ids": problem.token_ids.tolist(), "labels": labels.tolist()})
    batches = allocate_batches([tokens] * responses, problem.batch_size * tokens)

    def collect() -> Iterator[Pieces]:
        with tempfile.TemporaryDirectory() as folder:
            config = IndexConfig(
                run_path=str(Path(folder) / "index"),
                projection_dim=side,
                projection_target=target,
                loss_reduction="sum",
                token_batch_size=problem.batch_size * tokens,
            )
            Path(config.partial_run_path).mkdir()
            collector = GradientCollector(
                model=model.base_model, data=data, cfg=config, processor=processor, target_modules=modules
            )
            computer = CollectorComputer(model, data, collector=collector, batches=batches, cfg=config)
            computer.run_with_collector_hooks()
            yield [torch.from_numpy(np.array(load_gradients(config.partial_run_path)))]

    return collect
