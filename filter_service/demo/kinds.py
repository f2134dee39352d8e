"""The kinds of things in the pictogram world: a name and the code point of its emoji."""

FORBIDDEN: dict[str, tuple[tuple[str, str], ...]] = {
    "weapons": (
        ("gun", "1f52b"),
        ("knife", "1f52a"),
        ("sword", "2694"),
        ("bomb", "1f4a3"),
        ("axe", "1fa93"),
        ("bow and arrow", "1f3f9"),
    ),
    "tobacco-and-drugs": (
        ("cigarette", "1f6ac"),
        ("pill", "1f48a"),
        ("syringe", "1f489"),
    ),
    "alcohol": (
        ("beer", "1f37a"),
        ("wine", "1f377"),
        ("cocktail", "1f378"),
        ("champagne", "1f37e"),
        ("whisky", "1f943"),
        ("sake", "1f376"),
    ),
    "gambling": (
        ("dice", "1f3b2"),
        ("slot machine", "1f3b0"),
        ("playing card", "1f0cf"),
    ),
}
"""The forbidden classes of the demo's policy, each with its kinds."""

_ORDINARY = """
1f436 dog|1f431 cat|1f434 horse|1f42e cow|1f437 pig|1f430 rabbit|1f98a fox|1f43b bear|1f43c panda
1f428 koala|1f981 lion|1f42f tiger|1f438 frog|1f435 monkey|1f414 chicken|1f427 penguin|1f426 bird
1f989 owl|1f987 bat|1f40d snake|1f422 turtle|1f419 octopus|1f980 crab|1f420 fish|1f433 whale
1f988 shark|1f40a crocodile|1f993 zebra|1f418 elephant|1f42a camel|1f992 giraffe|1f98b butterfly
1f41d bee|1f41e ladybug|1f577 spider|1f40c snail|1f995 dinosaur|1f984 unicorn|1f34e apple
1f34c banana|1f347 grapes|1f349 watermelon|1f353 strawberry|1f352 cherries|1f351 peach
1f34d pineapple|1f95d kiwi|1f345 tomato|1f951 avocado|1f346 eggplant|1f955 carrot|1f33d corn
1f344 mushroom|1f966 broccoli|1f35e bread|1f9c0 cheese|1f354 hamburger|1f35f french fries
1f355 pizza|1f32d hot dog|1f373 fried egg|1f37f popcorn|1f363 sushi|1f366 ice cream|1f369 doughnut
1f36a cookie|1f382 birthday cake|1f36d lollipop|2615 coffee|1f95b milk|1f9c3 juice box
26bd soccer ball|1f3c0 basketball|1f3c8 football|1f3be tennis racket|1f3d3 ping pong paddle
1f94a boxing glove|1f6f9 skateboard|1f3c6 trophy|1f3ae game controller|1f9e9 puzzle piece
1f3a8 paint palette|1f3b8 guitar|1f3b9 piano|1f3ba trumpet|1f3bb violin|1f941 drum
1f3a4 microphone|1f3a7 headphones|1f697 car|1f68c bus|1f69c tractor|1f6b2 bicycle|1f682 train
2708 airplane|1f681 helicopter|1f680 rocket|26f5 sailboat|1f6a2 ship|2693 anchor
1f6a6 traffic light|1f3e0 house|1f3f0 castle|26fa tent|1f332 pine tree|1f334 palm tree|1f335 cactus
1f340 clover|1f339 rose|1f33b sunflower|1f341 maple leaf|2600 sun|1f319 moon|2b50 star
1f308 rainbow|2601 cloud|26a1 lightning|2744 snowflake|26c4 snowman|1f525 fire|1f30d globe
231a watch|1f4f1 phone|1f4bb laptop|1f4f7 camera|1f4fa television|1f4a1 light bulb|1f56f candle
1f4d6 book|270f pencil|2702 scissors|1f511 key|1f512 padlock|1f528 hammer|1f9f2 magnet
1f52d telescope|1f6d2 shopping cart|1f381 gift|1f388 balloon|1f514 bell|1f4e6 box|2709 envelope
1f9f8 teddy bear|1f451 crown|1f453 glasses|1f455 t-shirt|1f457 dress|1f460 high heel
1f392 backpack|2602 umbrella|1f48d ring|1f6bd toilet|1fa91 chair|231b hourglass
"""

ORDINARY: tuple[tuple[str, str], ...] = tuple(
    (name, code)
    for line in _ORDINARY.strip().splitlines()
    for code, name in (entry.split(" ", 1) for entry in line.split("|"))
)
"""Everything that the demo's policy allows."""

ALL: tuple[tuple[str, str], ...] = (*(k for g in FORBIDDEN.values() for k in g), *ORDINARY)
"""Every kind in the order of the sprite atlas: (name, code point in hexadecimal)."""

KINDS: tuple[str, ...] = tuple(name for name, _ in ALL)

CLASS_OF: dict[str, str] = {name: c for c, group in FORBIDDEN.items() for name, _ in group}
"""The forbidden class of a kind; ordinary kinds are absent."""

TRAINED_STYLES = ("noto", "twemoji")
UNSEEN_STYLE = "fluent"
"""Kept out of training, to measure transfer to drawings that the model has never seen."""
