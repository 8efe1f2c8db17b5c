"""Write the prompts of the story experiments: the first 8 to 14 words of each story of a text file, once each.

python docs/experiments/stories/openings.py $ACTIVEDPO_DATA/tinystories.txt runs/story-openings.jsonl
"""

import json
import random
import sys
from pathlib import Path

SEPARATOR = "<|endoftext|>"
SHORTEST_STORY, FEWEST_WORDS, MOST_WORDS = 20, 8, 14


def openings(text: str) -> list[str]:
    """The openings in the order of the stories; the lengths are drawn from seed 0."""
    draw = random.Random(0)
    stories = [story.split() for story in text.split(SEPARATOR)]
    found = (
        " ".join(words[: draw.randint(FEWEST_WORDS, MOST_WORDS)]) for words in stories if len(words) >= SHORTEST_STORY
    )
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    source, destination = map(Path, sys.argv[1:])
    destination.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"prompt": opening}) for opening in openings(source.read_text(encoding="utf-8"))]
    destination.write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} prompts in {destination}")
