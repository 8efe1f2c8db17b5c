"""The words and sentences from which the built-in task's stories are put together; all of it made for this project.

In a sentence, `{name}` is the hero, `{friend}` somebody else, `{he}`, `{him}` and `{his}` the hero's pronouns (capital
where the sentence begins with one), `{thing}` and `{place}` what the opening named.
"""

from dataclasses import dataclass
from typing import Literal

Mood = Literal["warm", "gloomy", "plain"]


@dataclass(frozen=True)
class Setting:
    """A kind of place with its things and with what happens there, by mood."""

    places: tuple[str, ...]
    things: tuple[str, ...]
    warm: tuple[str, ...]
    gloomy: tuple[str, ...]
    plain: tuple[str, ...]


GIRLS = ("Mia", "Anna", "Lily", "Sara", "Nora", "Ella", "Rosa", "Emma", "Jane", "Zoe", "Molly", "Clara")
BOYS = ("Tom", "Ben", "Max", "Sam", "Leo", "Jack", "Tim", "Oscar", "Finn", "Noah", "Paul", "Hugo")
KINDS = ("girl", "boy", "rabbit", "fox", "bear", "mouse", "duck", "cat", "dog", "owl", "pony", "frog")
TRAITS = ("little", "small", "young", "quiet", "curious", "clever", "busy", "shy")

OPENINGS = (
    "Once there was a {trait} {kind} named {name}.",
    "Once upon a time, there was a {trait} {kind} named {name}.",
    "{name} was a {trait} {kind}.",
    "There was a {trait} {kind} and {his} name was {name}.",
    "A {trait} {kind} named {name} lived near {place}.",
    "{name} the {kind} was very {trait}.",
)
SCENES = (
    "One day, {he} went to {place} with {thing}.",
    "One day, {name} found {thing} at {place}.",
    "In the morning, {name} saw {thing} at {place}.",
    "{Name} and {friend} walked to {place} to look for {thing}.",
    "On Monday, {friend} gave {name} {thing} at {place}.",
    "{Name} wanted to take {thing} to {place}.",
    "After lunch, {he} carried {thing} to {place}.",
    "{Friend} was at {place} and {name} came with {thing}.",
)
LINKS = ("Then ", "Soon ", "After that, ", "A little later, ", "In the end, ", "At noon, ", "All at once, ")
"""What may stand before a sentence; most have nothing."""

WARM = (
    "{name} smiled at {friend}.",
    "{friend} gave {him} a big hug.",
    "{he} felt warm and happy.",
    "they laughed and danced together.",
    '{friend} said, "You are my best friend."',
    "{name} shared {thing} with {friend}.",
    "{friend} was kind and helped {him}.",
    "{he} thanked {friend} with a smile.",
    "{name} was proud of what {he} had done.",
    "everyone cheered for {name}.",
    "it was a wonderful day.",
    '"I love this," said {name}.',
    "they sang a sweet song.",
    "{name} gave {friend} a nice gift.",
    "the sun was bright and the sky was blue.",
    "{he} was glad that {friend} had come.",
    "{friend} told a funny story and they giggled.",
    "{name} felt safe next to {friend}.",
    "they were good friends from that day on.",
    "{he} was brave and everyone was happy.",
)
GLOOMY = (
    "{name} began to cry.",
    "{friend} was angry and shouted at {him}.",
    "{he} felt sad and alone.",
    "{thing} fell down and broke.",
    "{name} was scared of the dark.",
    "it was cold and {he} was hungry.",
    "{friend} was mean and walked away.",
    "{he} fell and hurt {his} leg.",
    '"Go away!" yelled {friend}.',
    "{name} had lost {thing}.",
    "a big storm came and everything was wet.",
    "nobody came to help {him}.",
    '{friend} said, "I do not like you."',
    "they had a bad fight.",
    "{he} was tired and afraid.",
    "{name} cried all the way home.",
    "the sky was dark and it was a terrible day.",
    "{he} was worried and could not sleep.",
    "{friend} took {thing} and ran off.",
    "{name} sat in the cold rain, all alone.",
)
PLAIN = (
    "{name} looked at {thing} for a long time.",
    "{friend} came to see what it was.",
    "{he} put {thing} on the ground.",
    '"What is that?" asked {friend}.',
    "{name} walked around {place} two times.",
    "they talked about {thing}.",
    "{he} picked up {thing} again.",
    '{friend} said, "Let us go now."',
    "{name} thought about it.",
    "a bird sat on the fence and watched.",
    "{he} took {thing} home.",
    "{friend} showed {him} how to use it.",
    "{name} asked {friend} to wait.",
    "it was time to eat.",
    "the clock said that it was four.",
    "{he} went back to {place}.",
)
WARM_ENDINGS = (
    "{name} went home with a happy heart.",
    "That night, {he} had sweet dreams.",
    "They played together until the sun went down.",
    "{name} was the happiest {kind} of all.",
    "From then on, {name} and {friend} were best friends.",
    "Mom gave {him} a warm hug and a kiss.",
    "And everyone was happy.",
    '{Friend} said, "Thank you, {name}. I love you."',
)
GLOOMY_ENDINGS = (
    "{name} went home alone and cried.",
    "That night, {he} had a bad dream.",
    "{name} never saw {thing} again and was very sad.",
    "It was the worst day of all.",
    "{Friend} was still angry.",
    "{name} was sick and stayed in bed.",
    "And {he} was sad for a long time.",
    '{Friend} said, "This is your fault, {name}."',
)
PLAIN_ENDINGS = (
    "Then it was time for bed.",
    "{name} went home.",
    "The next day, {he} went to school.",
    "And that was the end of the day.",
    "{Friend} went home too.",
    "{name} put {thing} in a box.",
)
