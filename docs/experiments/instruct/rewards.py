"""Two scorers of answers that need no network and no GPU: ridge on words, learnt from the scores of two 7B reward models.

`answer` was learnt from `rm_test` on the answers to one half of the training prompts, `second` from `rm_train` on the other
half. Both see the same: hashed words and pairs of words of an answer, and what can be counted in it, its length first.
Neither sees a state of the model that is trained, so that no method reads off what the oracle reads. prepare.py fits them;
the weights lie in the folder that INSTRUCT names, `runs/instruct` where it names none.
"""

import math
import os
import re
import zlib
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

WORD = re.compile(r"[a-z0-9']+|[^\sa-z0-9']")
HASHED = 2048
"""Columns that words and pairs of words share; the sign of a word in its column is hashed too."""
FARTHEST = 3.0
"""Counts are cut at so many standard deviations of the answers that were learnt from, so that no extreme earns more."""
WEIGHTS = "rewards.safetensors"


def answer(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """What stands for `rm_test`: who answers."""
    return _scores("answer", prompts, responses)


def second(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """What stands for `rm_train`: who only judges."""
    return _scores("second", prompts, responses)


def counts(prompt: str, response: str) -> list[float]:
    """What can be counted in an answer: length, repetition, how much of the prompt it takes up, marks, capitals."""
    found = [word for word in words(response) if word[0].isalnum()]
    asked, number = {word for word in words(prompt) if word[0].isalnum()}, max(len(found), 1)
    threes = list(zip(found, found[1:], found[2:], strict=False))
    marks = [float(response.count(mark)) for mark in "\n,?!."]
    return [
        math.log1p(len(found)),
        math.sqrt(len(found)),
        len(found) / 50,
        len(set(found)) / number,
        1 - len(set(threes)) / max(len(threes), 1),
        sum(word in asked for word in found) / number,
        len(asked & set(found)) / max(len(asked), 1),
        *marks,
        float(response.rstrip()[-1:] in ('"', ".", "!", "?")),
        len(response) / number,
        sum(character.isdigit() for character in response) / max(len(response), 1),
        float(response[:1].isupper()),
        math.log1p(len(response)),
    ]


def hashed(response: str) -> np.ndarray:
    """Words, pairs of words, and how the answer begins, in `HASHED` columns; each as the logarithm of 1 and its count."""
    found = words(response)
    grams = [*found, *map(" ".join, pairwise(found)), *("^" + " ".join(found[:n]) for n in (1, 2))]
    row = np.zeros(HASHED, dtype=np.float32)
    for gram in grams:
        number = zlib.crc32(gram.encode())
        row[number % HASHED] += 1 if number >> 31 else -1
    return np.sign(row) * np.log1p(np.abs(row))


def words(text: str) -> list[str]:
    """Words and marks in small letters."""
    return WORD.findall(text.lower())


def rows(texts: Sequence[tuple[str, str]], centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What a scorer sees of prompts with answers, one row each."""
    counted = np.array([counts(prompt, response) for prompt, response in texts], dtype=np.float32)
    words_of = np.stack([hashed(response) for _, response in texts])
    return np.hstack([words_of, ((counted - centre) / scale).clip(-FARTHEST, FARTHEST)])


@cache
def _weights(folder: str) -> dict[str, np.ndarray]:
    return load_file(Path(folder) / WEIGHTS)


def _scores(name: str, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    known = _weights(os.environ.get("INSTRUCT", "runs/instruct"))
    seen = rows(list(zip(prompts, responses, strict=True)), known["centre"], known["scale"])
    return [float(score) for score in seen @ known[name]]
