"""The places of the built-in task's stories: what is found there, and what happens there in each mood."""

from activedpo_cli.tiny.story_parts import Setting

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
