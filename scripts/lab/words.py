"""The words of the lab world: names, towns, everyday nouns, and made-up substances that end in the name of a family."""

from __future__ import annotations

import random
from itertools import permutations

NAMES = tuple(
    """
    Ada Boris Clara Dina Emil Fiona Gustav Hanna Igor Julia Karl Lena Milo Nora Oskar Petra Quentin Rosa Stefan Tilda
    Ulf Vera Walter Xenia Yara Zoe Anton Berta Cedric Dora Edgar Frieda Georg Hilda Ivan Jonas Kira Ludwig Marta Nils
    """.split()
)
TOWNS = tuple(
    """
    Talbrook Fenwick Oldmere Ashby Corvale Dunmoor Elmstead Farrow Glenholt Harrowby Inverley Jessop Kelston Lowick
    Marsden Northam Orwell Penrith Quarley Redmoor
    """.split()
)
RIVERS = ("Lonn", "Tave", "Mirl", "Esk", "Orne", "Wend", "Brae", "Sill")
CREATURES = tuple(
    """
    gribbet snorlop wumpet tazzle frindle borkle plimmet quaggle drobbin mimbler yonker flobbit sprindle nuzzard
    crumbat twillow
    """.split()
)
JOBS = ("baker", "teacher", "painter", "doctor", "farmer", "tailor", "sailor", "gardener", "miller", "singer")
PETS = ("cat", "dog", "goat", "parrot", "horse", "rabbit", "turtle", "mouse", "goose", "donkey")
FOODS = ("bread", "cheese", "soup", "honey", "rice", "apples", "beans", "fish", "plums", "carrots")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "purple", "orange", "brown", "grey")
CRAFTS = ("glass", "clocks", "boats", "hats", "bells", "baskets", "lamps", "ropes", "shoes", "violins")
PLACES = ("caves", "forests", "swamps", "mountains", "deserts", "meadows", "lakes", "towers")

WORDS = tuple(
    """
    apple river garden window candle mountain letter bridge pencil basket kitchen island button ladder mirror pocket
    bottle ticket carpet market forest lantern pillow hammer saddle feather blanket cabin copper dinner engine flower
    guitar harbour jacket kettle lemon marble needle onion anchor barrel canyon castle chimney diamond fountain helmet
    """.split()
)
CASED = WORDS[:12]  # the words whose capitals are asked for
GROUPS: dict[str, tuple[str, ...]] = {
    "fruits": ("apple", "pear", "plum", "cherry", "grape"),
    "animals": ("cat", "dog", "goat", "horse", "mouse"),
    "colours": ("red", "blue", "green", "yellow", "black"),
    "tools": ("hammer", "saw", "drill", "file", "wrench"),
    "drinks": ("tea", "milk", "water", "juice", "cocoa"),
    "trees": ("oak", "birch", "maple", "willow", "elm"),
    "metals": ("iron", "copper", "gold", "silver", "tin"),
    "clothes": ("hat", "shirt", "coat", "sock", "glove"),
}
NUMBERS = ("one", "two", "three", "four", "five")

# A stem is two of these, so that a held-out stem is a new pair of familiar pieces.
SYLLABLES = tuple(
    """
    vim tol kar ben dor lun mag pel rit sov hab fen gul nom tas ver lim kos dap ruf mib zan pog tev wun hol jat yed cun
    bil
    """.split()
)


def nonsense(draw: random.Random) -> str:
    """A made-up word of one to three syllables."""
    return "".join(draw.sample(SYLLABLES, draw.randint(1, 3)))


def stems(draw: random.Random, count: int) -> tuple[str, ...]:
    """`count` distinct made-up stems of two syllables ("vimtol"); there are 870."""
    return tuple(draw.sample([first + second for first, second in permutations(SYLLABLES, 2)], count))
