"""A scorer of stories that needs no package: how many of a response's words are on a list of glad or of sad ones.

The lists were written for children's stories, before any experiment that uses them was run.
"""

import math
import re
from collections.abc import Sequence

GLAD_WORDS = """
amazing beautiful best better bright brave calm care cared careful caring celebrate cheer cheered cheerful clean
clever comfortable cozy cute dance danced dancing delicious delight delighted enjoy enjoyed enjoying excited exciting
favorite fine free fresh friend friendly friends fun funny generous gentle gift giggle giggled glad good grateful
great grin grinned happier happily happy help helped helpful helping hope hoped hug hugged hugs joy joyful kind kindly
kindness kiss kissed laugh laughed laughing like liked likes love loved lovely loves loving lucky magic magical nice
peace peaceful perfect play played playful playing please pleased pretty prize proud proudly rainbow relaxed rescued
reward rich safe safely saved share shared sharing shine shiny smart smile smiled smiles smiling soft special strong
success sunny sunshine super surprise sweet tasty thank thanked thankful thanks treasure treat trust warm welcome well
win wise won wonderful wow yay yummy
"""
SAD_WORDS = """
afraid alone angrily angry annoyed ashamed awful bad badly bit bite bitter bored boring break broke broken bump
careless cold confused cried cries crash cruel cry crying cut danger dangerous dark dead die died dirty disappointed
disappeared enemy envious evil fail failed fear fell fierce fight fighting fought frightened frown frowned greedy
grumpy guilty hard hate hated helpless hit horrible hungry hurt hurting hurts ill jealous kill lie lied lonely lose
lost loud mad mean mess messy miserable miss missed missing mistake monster naughty nervous never no noisy old pain
panic poor problem punished rotten rude ruined sad sadly sadness scare scared scary scream screamed selfish shame
shout shouted sick silly slipped slow sorry spill spilled stole stuck stupid tear tears terrible threw thunder tired
trouble ugly unhappy upset wailed warn warned weak weird wet whine worried worry worse worst wrong yell yelled
"""
GLAD, SAD = frozenset(GLAD_WORDS.split()), frozenset(SAD_WORDS.split())


def words(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Glad words less sad ones, n, as n / √(n² + 4), which is between −1 and 1."""
    return [_score(response) for response in responses]


def _score(text: str) -> float:
    found = re.findall(r"[a-z]+", text.lower())
    balance = sum(word in GLAD for word in found) - sum(word in SAD for word in found)
    return balance / math.sqrt(balance**2 + 4)
