"""The text that the built-in model learns from: stories put together here, and story files given to the build.

A row of training text is a whole number of stories, cut where the context ends. Row number i is the same on every machine,
so that training can stop and go on anywhere.
"""

import gzip
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from built_in_task.stories import draw_story

SEPARATOR = "<|endoftext|>"
GENERATED_SHARE = 0.6
"""How many rows hold stories put together here, where story files are given."""
HELD_OUT_EVERY = 50
"""One story of the files in so many is kept for measuring."""


class Corpus:
    """Story files split into a part to learn from, of `words` words, and a held-out part, and stories drawn without end.

    With no files, only drawn stories.
    """

    def __init__(self, files: Sequence[Path], seed: int) -> None:
        stories = read_stories(files)
        self._learnt = [story for place, story in enumerate(stories) if place % HELD_OUT_EVERY]
        self.held_out = stories[::HELD_OUT_EVERY]
        self.words = sum(len(story.split()) for story in self._learnt)
        self._seed = seed

    def row(self, number: int, context: int, encode: Callable[[str], list[int]]) -> list[int]:
        """`context` token ids; `encode` gives a story's ids with their beginning and end marks."""
        random = Random(f"{self._seed} row {number}")
        is_drawn = not self._learnt or random.random() < GENERATED_SHARE
        ids: list[int] = []
        while len(ids) < context:
            ids += encode(draw_story(random).text if is_drawn else random.choice(self._learnt))
        return ids[:context]

    def held_out_drawn(self, number: int) -> list[str]:
        """Drawn stories that no row is made of: their random numbers are others."""
        random = Random(f"{self._seed} held out")
        return [draw_story(random).text for _ in range(number)]

    def tokenizer_texts(self) -> list[str]:
        """What the tokenizer learns its pieces from: all stories to learn from, and as many drawn ones, at least 5,000."""
        random = Random(f"{self._seed} tokenizer")
        return [*self._learnt, *(draw_story(random).text for _ in range(max(5000, len(self._learnt))))]


def read_stories(files: Sequence[Path]) -> list[str]:
    """The stories of all files, each once, on one line, in plain ASCII, with capitals.

    Stories stand between `<|endoftext|>` marks, or a line each in files without marks. Where a file has no capitals they are
    put back: at the beginning of sentences, for `I`, and for names that the other files write in no other way.
    """
    texts = [_read(path) for path in files]
    names = _names([text for text in texts if not _is_lowercase(text)])
    found: dict[str, str] = {}
    for text in texts:
        for story in _split(text):
            plain = _plain(_with_capitals(story, names) if _is_lowercase(text) else story)
            if plain:
                found.setdefault(plain.lower(), plain)
    return list(found.values())


def _read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", errors="replace")


def _is_lowercase(text: str) -> bool:
    return text[:100_000].lower() == text[:100_000]


def _split(text: str) -> list[str]:
    """Stories; in files without marks a blank line only separates paragraphs."""
    return text.split(SEPARATOR) if SEPARATOR in text else re.split(r"(?<!\n)\n(?!\n)", text)


def _plain(story: str) -> str:
    for fancy, plain in {"“": '"', "”": '"', "’": "'", "‘": "'", "–": "-", "—": "-", "…": "..."}.items():
        story = story.replace(fancy, plain)
    line = " ".join(story.split())
    return line if line.isascii() and line.endswith((".", "!", "?", '"')) else ""


def _names(texts: Sequence[str]) -> set[str]:
    """Words that are capital at least five times in the middle of a sentence, and never small."""
    small: set[str] = set()
    capital: dict[str, int] = {}
    for text in texts:
        small.update(re.findall(r"\b[a-z]+\b", text))
        for word in re.findall(r"(?<=[a-z,] )[A-Z][a-z]+\b", text):
            capital[word.lower()] = capital.get(word.lower(), 0) + 1
    return {word for word, count in capital.items() if count >= 5 and word not in small}


def _with_capitals(story: str, names: set[str]) -> str:
    story = re.sub(r"\b[a-z]+\b", lambda found: found[0].capitalize() if found[0] in names else found[0], story)
    story = re.sub(r"\bi\b", "I", story)
    return re.sub(r'(^|[.!?]"?\s+"?|\n"?|, ")([a-z])', lambda found: found[1] + found[2].upper(), story)
