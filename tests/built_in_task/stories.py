"""Stories put together at random from the sentences of `story_parts`.

They teach the built-in model its English. Every story begins with a prompt (who, where, with what) and goes on with a few
sentences that lean to the warm or to the gloomy side, so that one prompt can be continued in many moods.
"""

from dataclasses import dataclass
from random import Random

from built_in_task import story_parts as parts

PLAIN_SHARE = 0.35
"""How often a sentence has no mood."""
LEANINGS = (0.1, 0.35, 0.65, 0.9)
"""How likely a sentence that has a mood is warm; each story draws one of these."""
LINK_SHARE = 0.3
SETTING_SHARE = 0.5
"""How often a sentence is one of the place's own."""


@dataclass(frozen=True)
class Story:
    """A prompt and its continuation, which begins with a space."""

    prompt: str
    response: str

    @property
    def text(self) -> str:
        """The whole story."""
        return self.prompt + self.response


def draw_story(random: Random) -> Story:
    """A story; equal states of `random` give equal stories."""
    setting = random.choice(parts.SETTINGS)
    kind = random.choice(parts.KINDS)
    is_girl = kind == "girl" or (kind != "boy" and random.random() < 0.5)
    name = random.choice(parts.GIRLS if is_girl else parts.BOYS)
    friend = random.choice([other for other in parts.GIRLS + parts.BOYS if other != name])
    thing = random.choice(setting.things)
    words = {
        "name": name,
        "friend": friend,
        "kind": kind,
        "trait": random.choice(parts.TRAITS),
        "place": random.choice(setting.places),
        "thing": thing,
        "he": "she" if is_girl else "he",
        "him": "her" if is_girl else "him",
        "his": "her" if is_girl else "his",
    }
    prompt = [random.choice(parts.OPENINGS), random.choice(parts.SCENES)]
    beginning = " ".join(_filled(sentence, words) for sentence in prompt)
    known = words | {"thing": _definite(thing)}
    return Story(beginning, "".join(f" {_filled(sentence, known)}" for sentence in _continuation(setting, random)))


def draw_prompts(number: int, random: Random) -> list[str]:
    """That many different prompts, in the order in which they were drawn."""
    found: dict[str, None] = {}
    while len(found) < number:
        found.setdefault(draw_story(random).prompt)
    return list(found)


def _continuation(setting: parts.Setting, random: Random) -> list[str]:
    """Two to four different sentences and an ending, not yet filled in."""
    leaning = random.choice(LEANINGS)
    chosen: list[str] = []
    while len(chosen) < 2 or (len(chosen) < 4 and random.random() < 0.6):
        sentence = random.choice(_sentences(setting, _mood(leaning, random), random))
        if sentence not in chosen:
            chosen.append(sentence)
    linked = [random.choice(parts.LINKS) + line if random.random() < LINK_SHARE else line for line in chosen]
    endings = {"warm": parts.WARM_ENDINGS, "gloomy": parts.GLOOMY_ENDINGS, "plain": parts.PLAIN_ENDINGS}
    return [*linked, random.choice(endings[_mood(leaning, random)])]


def _mood(leaning: float, random: Random) -> parts.Mood:
    if random.random() < PLAIN_SHARE:
        return "plain"
    return "warm" if random.random() < leaning else "gloomy"


def _sentences(setting: parts.Setting, mood: parts.Mood, random: Random) -> tuple[str, ...]:
    general = {"warm": parts.WARM, "gloomy": parts.GLOOMY, "plain": parts.PLAIN}
    own = {"warm": setting.warm, "gloomy": setting.gloomy, "plain": setting.plain}
    return (own if random.random() < SETTING_SHARE else general)[mood]


def _definite(thing: str) -> str:
    """`the red ball` for `a red ball`."""
    return "the " + thing.split(" ", 1)[1]


def _filled(sentence: str, words: dict[str, str]) -> str:
    """The sentence with its words, its first letter a capital."""
    capitals = {key.capitalize(): _capitalised(word) for key, word in words.items()}
    return _capitalised(sentence.format(**words, **capitals))


def _capitalised(text: str) -> str:
    """The text with its first letter a capital, also behind an opening quotation mark."""
    for place, character in enumerate(text):
        if character.isalpha():
            return text[:place] + character.upper() + text[place + 1 :]
    return text
