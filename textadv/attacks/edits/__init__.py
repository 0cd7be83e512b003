"""Attacks by edits of the text itself: typos, look-alikes, synonyms, encodings, and searches for those that matter."""

from textadv.attacks.edits.attack import EditAttack, Search
from textadv.attacks.edits.augmenting import PlantedWords, StochasticTokens, Typos, typos
from textadv.attacks.edits.batches import OneOf, TextEdits
from textadv.attacks.edits.beam import Beam, Exhaustive, RandomEdits
from textadv.attacks.edits.characters import Letter
from textadv.attacks.edits.constraints import (
    ChangedWords,
    EditDistance,
    LongWords,
    NotLabelWords,
    NotStopWords,
    NotTwice,
    Similarity,
)
from textadv.attacks.edits.disguises import base64, padding, rot13, spelling_out, splitting
from textadv.attacks.edits.goals import Misclassify, PastThreshold, Reduce, Toward
from textadv.attacks.edits.greedy import Greedy
from textadv.attacks.edits.letters import STOP_WORDS, WordList
from textadv.attacks.edits.passage import Passage
from textadv.attacks.edits.population import Genetic, Swarm
from textadv.attacks.edits.presets import (
    bad_characters,
    bae,
    deepwordbug,
    hotflip,
    input_reduction,
    pruthi,
    pwws,
    textbugger,
    textfooler,
)
from textadv.attacks.edits.replacing import (
    AnyOf,
    DeleteWord,
    ExchangeWords,
    GradientWords,
    InsertWords,
    MaskedWords,
    OwnNeighbours,
    Synonyms,
)
from textadv.attacks.edits.results import Edited, EditedRow, Status, right_in_all
from textadv.attacks.edits.synonyms import WordTable, read_synonyms, read_wordnet
from textadv.attacks.edits.triggers import (
    InsertGradientWords,
    holding,
    paddings,
    predictive_words,
    telling_words,
    trigger_words,
)
from textadv.attacks.edits.whole import Base64, Pad, Rot13, SpellOut, Split
from textadv.models.pieces import Pieces
from textadv.models.reading_models import MaskedModel, TextEncoder, load_masked_model, load_text_encoder
from textadv.models.victim import Victim

__all__ = [
    "STOP_WORDS",
    "AnyOf",
    "Base64",
    "Beam",
    "ChangedWords",
    "DeleteWord",
    "EditAttack",
    "EditDistance",
    "Edited",
    "EditedRow",
    "ExchangeWords",
    "Exhaustive",
    "Genetic",
    "GradientWords",
    "Greedy",
    "InsertGradientWords",
    "InsertWords",
    "Letter",
    "LongWords",
    "MaskedModel",
    "MaskedWords",
    "Misclassify",
    "NotLabelWords",
    "NotStopWords",
    "NotTwice",
    "OneOf",
    "OwnNeighbours",
    "Pad",
    "Passage",
    "PastThreshold",
    "Pieces",
    "PlantedWords",
    "RandomEdits",
    "Reduce",
    "Rot13",
    "Search",
    "Similarity",
    "SpellOut",
    "Split",
    "Status",
    "StochasticTokens",
    "Swarm",
    "Synonyms",
    "TextEdits",
    "TextEncoder",
    "Toward",
    "Typos",
    "Victim",
    "WordList",
    "WordTable",
    "bad_characters",
    "bae",
    "base64",
    "deepwordbug",
    "holding",
    "hotflip",
    "input_reduction",
    "load_masked_model",
    "load_text_encoder",
    "padding",
    "paddings",
    "predictive_words",
    "pruthi",
    "pwws",
    "read_synonyms",
    "read_wordnet",
    "right_in_all",
    "rot13",
    "spelling_out",
    "splitting",
    "telling_words",
    "textbugger",
    "textfooler",
    "trigger_words",
    "typos",
]
