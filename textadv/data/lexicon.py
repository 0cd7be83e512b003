"""The words of the built-in reviews: closed-class words that all splits share, open-class words of one split each.

The train split uses every closed-class word, in templates of its own, so that a model can learn them all there. The
words of validation and test are short, so that in pieces they are no longer than the familiar words of train.
"""

from __future__ import annotations

from dataclasses import dataclass

# A negator turns a judgement round; an intensifier gives it its weight, "" being none.
NEGATORS = ("not", "never", "hardly", "scarcely")
WEIGHTS = {"slightly": 1, "somewhat": 1, "": 2, "utterly": 3, "extremely": 3}

# The polarity of an affix: praise 1, blame -1.
SUFFIXES = {"ful": 1, "less": -1}
PREFIXES = {"well-": 1, "ill-": -1, "un": -1}

FUNCTION_WORDS = frozenset(
    """
    a although an and any be been but by for had has her i in is it me my of our some that the this to was we while will
    yet you
    """.split()
).union(NEGATORS, (word for word in WEIGHTS if word))


@dataclass(frozen=True)
class Lexicon:
    """The open-class words and the clause templates of one split.

    stems: take a suffix ("hopeful", "hopeless"); participles: take a prefix ("well-lit", "unlit").
    subjects, predicates: any of the first with any of the second is a clause. Slots: {n} thing, {m} place or occasion,
        {v} verb, {neg} negator, {quality} the judgement with its intensifier.
    """

    stems: tuple[str, ...]
    participles: tuple[str, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    verbs: tuple[str, ...]
    subjects: tuple[str, ...]
    predicates: tuple[str, ...]

    @property
    def words(self) -> frozenset[str]:
        """All open-class words, without affixes."""
        return frozenset(self.stems + self.participles + self.things + self.places + self.verbs)


TRAIN = Lexicon(
    stems=tuple(
        """
        help grace hope joy taste care thought power color meaning purpose use skill faith cheer soul tact
        delight wonder heart flavor peace zest charm spirit style sense merit trust luck tune life mind event
        success youth vigor play point gust insight rhythm savor scent value verve virtue vision focus comfort
        detail glow harmony honor humor light magic mood nuance passion patience polish pride quality romance
        spark support talent texture warmth wisdom
        """.split()
    ),
    participles=tuple(
        """
        planned lit made seasoned balanced rehearsed kept paced organized prepared furnished stocked managed
        trained timed chosen designed dressed edited equipped executed financed fitted formed groomed heated
        informed judged lined mixed oiled ordered packed painted pitched polled produced proportioned
        researched scored shaped staged staffed supplied tended tested tuned used worded woven
        """.split()
    ),
    things=tuple(
        """
        soup film novel waiter room concert menu actor story pasta lamp sofa camera phone guide ticket poster
        pillow dancer singer chapter anthem salad bread coffee sandal jacket helmet bicycle tent boat puzzle
        game lecture mural statue carpet window curtain mirror blender kettle printer keyboard laptop speaker
        radio podcast magazine album trailer sequel villain hero chorus encore bench sweater ladder napkin
        dessert omnibus ferry banjo comic diary
        """.split()
    ),
    places=tuple(
        """
        weekend dinner city hotel evening theater market wedding journey beach airport harbor picnic village
        birthday winter summer library station corner morning holiday museum garden kitchen office island pier
        chalet arena
        """.split()
    ),
    verbs=("declared", "reported", "noted", "explained", "promised", "repeated"),
    subjects=(
        "the {n}",
        "this {n}",
        "my {n}",
        "some {n}",
        "the {n} of our {m}",
        "a {n} by that {m}",
        "the {n} for her {m}",
        "i {v} the {n}",
        "we {v} to you that it",
    ),
    predicates=(
        "was {neg} {quality}",
        "is {neg} {quality}",
        "has {neg} been {quality}",
        "had {neg} been {quality} to me",
        "was {neg} a {quality} {n}",
        "will {neg} be {quality} in any {m}",
    ),
)

VALIDATION = Lexicon(
    stems=tuple(
        """
        bliss boon dream fruit gleam hue jest pep hush shine thank truth wish wit worth luster aid gain bond
        zip
        """.split()
    ),
    participles=tuple(
        """
        aged baked bound built carved cooked drawn forged roasted sung sewn tied cut fed filed laid paid
        sealed
        """.split()
    ),
    things=tuple(
        """
        burger ballad vase cartoon drum essay jigsaw noodle opera cake ring sonnet teapot violin wallet bag
        hat toy pen tea
        """.split()
    ),
    places=tuple(
        """
        bakery bridge castle cruise forest night parade plaza spring valley inn bay
        """.split()
    ),
    verbs=("said", "saw", "claimed"),
    subjects=("that {n}", "her {n}", "that {n} in my {m}", "you {v} a {n}"),
    predicates=(
        "was {neg} {quality}",
        "is {neg} {quality} to that {m}",
        "will {neg} be {quality}",
        "had {neg} been a {quality} {n}",
    ),
)

TEST = Lexicon(
    stems=tuple(
        """
        aim art balm bounty depth ease feel gift glee grit health lore mirth plenty rest song vim zeal boost
        gem
        """.split()
    ),
    participles=tuple(
        """
        penned brined bred brewed crafted fried grilled knit placed plated read recorded run sold told voiced
        bought held
        """.split()
    ),
    things=tuple(
        """
        apron basket clock comedy cup earring fiddle guitar juice kite lantern memoir mug omelet poem quilt
        show taco pie rug
        """.split()
    ),
    places=tuple(
        """
        autumn cabin canal desert gallery meadow suburb tavern clinic studio lake hall
        """.split()
    ),
    verbs=("felt", "wrote", "swore"),
    subjects=("our {n}", "any {n}", "our {n} in this {m}", "you {v} her {n}"),
    predicates=(
        "was {neg} {quality}",
        "will {neg} be {quality}",
        "has {neg} been {quality} to you",
        "had {neg} been a {quality} {n}",
    ),
)
