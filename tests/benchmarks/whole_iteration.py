"""What an iteration of the built-in task costs, beside one that a person would write with the libraries' bare calls.

The bare one samples, makes one plain forward and backward pass in place of features, labels pairs by the reward model,
trains with TRL and measures the reward on held-out prompts. Ours selects by features of all responses, and its evaluation
has a second scorer, log-probabilities for the KL and, in a first iteration, the initial model too. Each is a process of its
own, in turns. The bare one has its imports and its models before the clock of the first phase starts, ours imports a library
in the phase that needs it first: the last line compares the processes from their start to their end.

    python tests/benchmarks/whole_iteration.py            # some minutes
    python tests/benchmarks/whole_iteration.py --turns 1
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "activedpo_cli" / "tiny" / "assets"
PHASES = ("generate", "featurize", "select", "label", "train", "evaluate")
PROMPTS, RESPONSES, TOKENS, PAIRS = 100, 3, 64, 50
INITIAL = "initial"


def main() -> None:
    """Print a table of medians, and the median ratio of the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        print(json.dumps(bare_iteration()))
        return
    turns, processes = [], []
    for number in range(1, arguments.turns + 1):
        (bare, bare_process), (ours, our_process) = _seconds_of_bare(), _seconds_of_ours()
        turns.append((bare, ours))
        processes.append(our_process / bare_process)
        for whose, phases, process in (("bare", bare, bare_process), ("ours", ours, our_process)):
            told = f"turn {number}, {whose}: phases {sum(phases.values()):.1f} s, whole process {process:.1f} s"
            print(told, file=sys.stderr, flush=True)
    print("| | bare calls, s | here, s |\n|---|--:|--:|")
    for phase in (*PHASES, INITIAL):
        cells = (median(seconds.get(phase, 0.0) for seconds in side) for side in zip(*turns, strict=True))
        print(f"| {phase} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    for name, left_out in (("all", ()), ("all but what a run does once", (INITIAL,))):
        ratios = [_sum(ours, left_out) / _sum(bare, left_out) for bare, ours in turns]
        print(f"{name}: {median(ratios):.2f} × bare ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"whole processes: {median(processes):.2f} × bare ({min(processes):.2f} to {max(processes):.2f})")


def bare_iteration() -> dict[str, float]:
    """Seconds by phase; models are loaded before."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "language-model")
    base = AutoModelForCausalLM.from_pretrained(ASSETS / "language-model", dtype=torch.float32)
    policy: Any = get_peft_model(base, LoraConfig(r=16, lora_alpha=64, target_modules="all-linear"))
    judge = AutoModelForSequenceClassification.from_pretrained(ASSETS / "reward-model", dtype=torch.float32)
    reader = AutoTokenizer.from_pretrained(ASSETS / "reward-model")
    prompts, held_out = (
        (ASSETS / f"prompts-{name}.txt").read_text().splitlines()[:PROMPTS] for name in ("train", "eval")
    )
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[phase] = time.perf_counter() - began

    def sampled(asked: list[str]) -> list[str]:
        found: list[str] = []
        tokenizer.padding_side = "left"
        for start in range(0, len(asked), 64):
            batch = tokenizer(asked[start : start + 64], return_tensors="pt", padding=True)
            with torch.no_grad():
                made = policy.generate(
                    **batch, do_sample=True, top_k=0, top_p=1.0, num_return_sequences=RESPONSES, max_new_tokens=TOKENS
                )
            found += tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        tokenizer.padding_side = "right"
        return found

    def rewards(texts: list[str]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(texts), 48):
            with torch.no_grad():
                batch = reader(texts[start : start + 48], return_tensors="pt", padding=True)
                found += judge(**batch).logits[:, 0].tolist()
        return found

    with timed("generate"):
        responses = sampled(prompts)
    with timed("featurize"):
        asked = [prompt for prompt in prompts for _ in range(RESPONSES)]
        for start in range(0, len(responses), 24):
            texts = [a + b for a, b in zip(asked[start : start + 24], responses[start : start + 24], strict=True)]
            batch = tokenizer(texts, return_tensors="pt", padding=True)
            logps = policy(**batch).logits[:, :-1].log_softmax(-1).gather(-1, batch["input_ids"][:, 1:, None])
            logps.sum().backward()
        policy.zero_grad()
    with timed("label"):
        pairs = [(prompts[n], *responses[RESPONSES * n : RESPONSES * n + 2]) for n in range(PAIRS)]
        first, second = (rewards([pair[0] + pair[side] for pair in pairs]) for side in (1, 2))
        rows = [
            {"prompt": prompt, "chosen": a if one > other else b, "rejected": b if one > other else a}
            for (prompt, a, b), one, other in zip(pairs, first, second, strict=True)
        ]
    with timed("train"), tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(
            output_dir=folder,
            per_device_train_batch_size=8,
            num_train_epochs=4,
            learning_rate=3e-4,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
        )
        DPOTrainer(model=policy, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()
    with timed("evaluate"):
        policy.eval()
        asked = [prompt for prompt in held_out for _ in range(RESPONSES)]
        rewards([a + b for a, b in zip(asked, sampled(held_out), strict=True)])
    return seconds


def _run(command: list[str]) -> tuple[str, float]:
    """What a process prints, and the seconds from its start to its end."""
    began = time.perf_counter()
    told = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return told, time.perf_counter() - began


def _seconds_of_bare() -> tuple[dict[str, float], float]:
    """By phase, and of the whole process."""
    told, process = _run([str(Path(__file__).resolve()), "--bare"])
    return json.loads(told.splitlines()[-1]), process


def _seconds_of_ours() -> tuple[dict[str, float], float]:
    """By phase, and of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ["run", "--run", str(run), "--model", "tiny", "--iterations", "1", "--no-report", "--quiet"]
        _, process = _run(["-m", "activedpo_cli", *command])
        seconds = {
            phase: json.loads((run / "iter-001" / phase / "manifest.json").read_bytes())["execution"]["seconds"]
            for phase in PHASES
        }
        (initial,) = run.glob("reference/evaluate/manifest.json")
        once = json.loads(initial.read_bytes())["execution"]["seconds"]
        return seconds | {"evaluate": seconds["evaluate"] - once, INITIAL: once}, process


def _sum(seconds: dict[str, float], left_out: tuple[str, ...]) -> float:
    return sum(value for phase, value in seconds.items() if phase not in left_out)


if __name__ == "__main__":
    main()
