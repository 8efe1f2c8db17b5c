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

FOREST = Setting(
    places=("the forest", "the old oak tree", "the hill", "the small cave"),
    things=("a red leaf", "a long stick", "a basket of nuts", "an old map", "a blue feather", "a lamp"),
    warm=(
        "a kind owl showed {him} the way home.",
        "the birds sang a merry song in the trees.",
        "{he} shared the sweet berries with a squirrel.",
        "the soft moss was a cozy place to rest.",
        "a gentle deer let {him} touch its warm nose.",
        "{name} built a lovely little house of leaves.",
    ),
    gloomy=(
        "{name} was lost between the dark trees.",
        "a wolf howled and {he} trembled.",
        "thorns hurt {his} hands.",
        "an angry bee stung {him} on the ear.",
        "the path was gone and {he} was afraid.",
        "a branch fell and tore {his} coat.",
    ),
    plain=(
        "{he} counted the trees on the way.",
        "the wind moved the leaves.",
        "{name} looked under a big stone.",
        "a snail crossed the path.",
        "{he} drew a line in the sand with a stick.",
        "there were many ants near the tree.",
    ),
)
SEA = Setting(
    places=("the beach", "the sea", "the harbor", "the little island"),
    things=("a white shell", "a wooden boat", "a green bottle", "a fishing net", "a bucket", "a round stone"),
    warm=(
        "the waves were gentle and {he} laughed.",
        "a friendly dolphin played with {him}.",
        "they made a beautiful castle of golden sand.",
        "the captain thanked {him} and gave {him} a gift.",
        "{name} helped a baby turtle find the water and felt proud.",
        "they ate delicious fruit on the sunny sand.",
    ),
    gloomy=(
        "a big wave ruined everything.",
        "the boat was broken and the water was cold.",
        "a crab hurt {his} toe and {he} cried.",
        "{name} was scared of the deep water.",
        "the storm took {thing} away.",
        "a gull stole {his} bread and {he} was hungry.",
    ),
    plain=(
        "a ship went by, far away.",
        "{he} put some sand in a cup.",
        "the water went up and down.",
        "{name} looked for more shells.",
        "a man was mending a net.",
        "they walked along the water.",
    ),
)
KITCHEN = Setting(
    places=("the kitchen", "the bakery", "the big table", "grandma's house"),
    things=("a cake", "a pot of soup", "a loaf of bread", "an apple pie", "a jar of honey", "a bowl of rice"),
    warm=(
        "the cake was delicious and everyone smiled.",
        "grandma gave {him} a warm cookie and a hug.",
        "it smelled sweet and lovely.",
        "{name} shared the last piece and {friend} was glad.",
        "they had fun and baked a beautiful pie.",
        'mom said, "I am proud of you."',
    ),
    gloomy=(
        "the milk spilled and mom was angry.",
        "the soup was bitter and cold.",
        "{he} burned {his} finger and cried.",
        "the plate fell and broke.",
        "the bread was old and dirty.",
        "{friend} ate it all and {name} was hungry.",
    ),
    plain=(
        "{he} washed the spoon.",
        "{friend} set the table.",
        "the oven made a soft noise.",
        "{name} put an egg in the bowl.",
        "they waited for ten minutes.",
        "grandma opened the window.",
    ),
)
SCHOOL = Setting(
    places=("the school", "the library", "the classroom", "the music room"),
    things=("a thick book", "a yellow pencil", "a drum", "a picture", "a letter", "a ruler"),
    warm=(
        'the teacher smiled and said, "Well done."',
        "{name} won a prize and the class cheered.",
        "{friend} helped {him} read the hard words.",
        "they played a merry tune together.",
        "a new friend sat next to {him} and it was nice.",
        "{he} painted a beautiful picture for {friend}.",
    ),
    gloomy=(
        "the other children were mean to {him}.",
        "{he} had a bad mark and felt sad.",
        "the teacher was angry and shouted.",
        "{name} tore the page and was worried.",
        "{friend} broke {his} pencil.",
        "nobody wanted to sit with {him} and {he} was lonely.",
    ),
    plain=(
        "{he} wrote {his} name on the paper.",
        "the bell rang at nine.",
        "{name} opened the book and read.",
        "{friend} sat at the next table.",
        "the lesson was about numbers.",
        "they went out for a break.",
    ),
)
FARM = Setting(
    places=("the farm", "the barn", "the field", "the pond"),
    things=("a bag of corn", "a brown hen", "an egg", "a rope", "a wheel", "a bell"),
    warm=(
        "a soft lamb came and loved {him} at once.",
        "the farmer thanked {him} with a sweet apple.",
        "{name} rode the gentle horse and laughed.",
        "the hay was warm and cozy.",
        "the little chicks were safe and {he} was glad.",
        "they danced around the barn with joy.",
    ),
    gloomy=(
        "the goat was mean and kicked {him}.",
        "{he} fell in the dirty mud.",
        "the hen was sick and {name} was worried.",
        "the farmer yelled because the fence was broken.",
        "the cow was lost and it was getting dark.",
        "the rain ruined the corn and they were sad.",
    ),
    plain=(
        "the cows ate grass.",
        "{he} filled the bucket with water.",
        "{name} closed the gate.",
        "a tractor drove by.",
        "{friend} counted the eggs.",
        "they sat on the fence.",
    ),
)
TOWN = Setting(
    places=("the park", "the market", "the station", "the shop"),
    things=("a red ball", "a toy car", "a kite", "a coin", "a hat", "a box"),
    warm=(
        "a kind man gave {him} a balloon.",
        "they had fun on the swing and giggled.",
        "{name} gave {his} coin to a poor man, who smiled.",
        "the music was lovely and they danced.",
        "{friend} bought {him} a delicious ice cream.",
        "the kite was beautiful in the sunny sky.",
    ),
    gloomy=(
        "a big dog growled and {he} was frightened.",
        "somebody stole {thing}.",
        "{name} was lost in the crowd and cried.",
        "the train was gone and {he} was alone.",
        "a car splashed {him} and {he} was cold and wet.",
        "{friend} pushed {him} and they had a fight.",
    ),
    plain=(
        "many people walked by.",
        "{he} waited for the bus.",
        "{name} looked at the shop window.",
        "a woman sold flowers.",
        "{friend} asked for the way.",
        "the street was long.",
    ),
)
SETTINGS = (FOREST, SEA, KITCHEN, SCHOOL, FARM, TOWN)
