"""What training saves by asking the reference once for each pair and not in every epoch; both are timed in turns.

A random Llama of 15 million parameters, r = 32 on all linear layers, 32 pairs of responses of 64 tokens to prompts of 64,
batches of 8, four epochs, as the paper has. One thread and processor time, so that other work on the machine hardly counts.

    python tests/benchmarks/reference_once.py            # some minutes
    python tests/benchmarks/reference_once.py --quick    # four layers, 8 pairs, two turns
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from small_models import byte_tokenizer

from activedpo_cli.base.settings import TrainSettings
from activedpo_cli.models.random_models import random_base_model, random_policy
from activedpo_cli.train.dpo_trainer import DPOExample, train_dpo

CPU = torch.device("cpu")
TOKENS = 64
SETTINGS = TrainSettings(num_train_epochs=4, per_device_train_batch_size=8)


def main() -> None:
    """Print the seconds of each turn, and the median of their ratios."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    layers, pairs, turns = (4, 8, 2) if quick else (7, 32, 3)
    ratios = []
    for turn in range(turns):
        once, each = (seconds(layers, pairs, asks_once=asks_once) for asks_once in (True, False))
        ratios.append(once / each)
        print(f"turn {turn + 1}: once {once:.2f} s, in every epoch {each:.2f} s, {once / each:.3f} ×", flush=True)
    print(f"median {median(ratios):.3f} × ({min(ratios):.3f} to {max(ratios):.3f})")


def seconds(layers: int, pairs: int, *, asks_once: bool) -> float:
    """How much processor time one training takes."""
    base = random_base_model("tiny-llama-15m", seed=0, dtype=torch.float32, device=CPU, num_hidden_layers=layers)
    policy = random_policy(base, r=32, lora_alpha=128, target_modules="all-linear", seed=0)
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("lora_" in name)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.process_time()
        train_dpo(
            policy,
            byte_tokenizer(),
            examples(pairs),
            SETTINGS,
            seed=0,
            device=CPU,
            on_log=lambda row: None,
            scratch=Path(scratch),
            asks_reference_once=asks_once,
        )
        return time.process_time() - began


def examples(count: int) -> list[DPOExample]:
    """Pairs of random tokens."""
    source = random.Random(0)

    def ids() -> list[int]:
        return [source.randrange(4096) for _ in range(TOKENS)]

    return [
        DPOExample(pair_id=f"p{pair}", prompt_ids=ids(), chosen_ids=ids(), rejected_ids=ids()) for pair in range(count)
    ]


if __name__ == "__main__":
    main()
