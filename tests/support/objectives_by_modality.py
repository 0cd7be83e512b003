"""The rows of the table of objectives: everything that training can be told to lower, and where it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.cells import Cell, Refused
from textadv.config.types import ConfigError

# Column -> its title.
COLUMNS = {
    "text": "text classifier",
    "image": "image classifier",
    "tokens": "token classifier",
    "chat": "chat model",
    "text, AWP": "text, AWP",
    "image, AWP": "image, AWP",
}
AWP = 0.01


@dataclass(frozen=True)
class Row:
    """An objective.

    name: `objective.name` of a classifier, or the name of one of a chat model's `objective.parts`.
    python: the public names behind it. keys: its other keys, as a file writes them. also: what else its run needs, by
    text, image and chat. beside: parts that a chat run needs with it.
    attacks: whether rows are attacked. terms: the parts of the loss that it adds.
    cells: what the columns say; those that are not named say yes.
    from_python: on chats it works where it is put in from Python only; the cell then says how the file refuses it.
    """

    name: str
    python: tuple[str, ...]
    keys: str = ""
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    beside: str = ""
    attacks: bool = True
    terms: tuple[str, ...] = ()
    cells: Mapping[str, Cell] = field(default_factory=dict)
    from_python: bool = False

    @property
    def title(self) -> str:
        """The name with its keys."""
        return f"{self.name}, {self.keys}" if self.keys else self.name

    def cell(self, column: str) -> Cell:
        """What the library says in this column."""
        return self.cells.get(column)

    def overrides(self, column: str) -> list[str]:
        """What a run of this column sets."""
        kind = column.partition(",")[0]
        keys = f", {self.keys}" if self.keys else ""
        if kind == "chat":
            return [f"objective.parts=[{{name: {self.name}{keys}}}{self.beside}]", *self.also.get(kind, ())]
        moved = f", weight_perturbation: {AWP}" if column.endswith("AWP") else ""
        return [f"objective={{name: {self.name}{keys}{moved}}}", *self.also.get(kind, ())]


def no_part(reason: str) -> Refused:
    """What the configuration of a chat run says to the objectives of classifiers."""
    return Refused(reason, "objective.parts[0].name must be one of 'cat', 'capo', 'lat'", ConfigError)


NO_PART = no_part("A chat run adds up `objective.parts`, and this is none of them.")
ONLY_PART = Refused(
    "It is a part of a chat run's objective: it needs harmful targets, safe answers or useful chats.",
    "objective.name must be one of 'clean', 'adversarial', 'trades'",
    ConfigError,
)
NO_AWP = Refused(
    "`weight_perturbation` needs an attack that is finished before the losses are computed.",
    "unknown key objective.weight_perturbation",
    ConfigError,
)
NO_STEP = {"text, AWP": NO_AWP, "image, AWP": NO_AWP}
NO_WORDS = Refused(
    "Runs with `task: tokens` offer `clean`, `adversarial`, `trades` and `freelb`.",
    "objective.name must be one of 'clean', 'adversarial', 'trades', 'freelb', got",
    ConfigError,
)
NO_ATTACK = {**NO_STEP, "chat": no_part("In a chat run this is `supervised`."), "tokens": None}
NO_CLASSES = no_part("It compares the logits of classes, which chats do not have.")


def classifying(
    name: str,
    python: str,
    term: str,
    also: tuple[str, ...] = (),
    attacks: bool = True,
    cells: Mapping[str, Cell] | None = None,
    from_python: bool = True,
) -> Row:
    """An objective of classifiers that no chat run names, and of tokens `clean` alone."""
    both = dict.fromkeys(("text", "image"), also)
    cells = {"chat": NO_PART, "tokens": NO_WORDS, **(cells or {})}
    return Row(name, (python,), "", both, "", attacks, (term,), cells, from_python)


def part(
    name: str, *python: str, terms: str, keys: str = "", beside: str = "", also: tuple[str, ...] = (), attacks: bool
) -> Row:
    """A part of the objective of a chat run; terms: separated by blanks."""
    cells: dict[str, Cell] = dict.fromkeys((column for column in COLUMNS if column != "chat"), ONLY_PART)
    return Row(name, python, keys, {"chat": also}, beside, attacks, tuple(terms.split()), cells)


SEVERAL = "threat={space: several, layers: [0, 1], relative_radius: 0.3}"
SAFE = ", {name: supervised}"
EMBEDDED = "model.lora={r: 4, alpha: 8, targets: [embed_tokens, q_proj]}"
ROWS = (
    classifying("clean", "Clean", "clean", attacks=False, cells=NO_ATTACK, from_python=False),
    Row("adversarial", ("Adversarial",), terms=("adversarial",)),
    Row("trades", ("Consistency", "trades"), terms=("consistency",)),
    Row("freelb", ("FreeLB",), terms=("adversarial",), cells=NO_STEP),
    classifying("free", "Free", "adversarial", also=("attack={name: pgd, steps: 1}",), cells=NO_STEP),
    classifying("mart", "Mart", "mart"),
    classifying("alum", "alum", "consistency"),
    classifying("smart", "smart", "consistency"),
    classifying("r3f", "r3f", "consistency", also=("attack={name: noise}",)),
    classifying("regularised", "Regularised", "regularised"),
    classifying("distributional", "Distributional", "distributional", also=("threat.norm=l2",)),
    classifying("predictor", "PredictorConsistency", "predictor", cells={"chat": NO_CLASSES}, from_python=False),
    part("cat", "Away", "Toward", "Together", terms="away toward", attacks=True),
    part("cat", "OverTokens", keys="mean: token", terms="away toward", attacks=True),
    part("capo", "Preference", keys="form: ipo", terms="preference", attacks=True),
    part("capo", "Preference", keys="form: dpo", terms="preference", attacks=True),
    part("lat", "Away", "Toward", also=(SEVERAL,), terms="away toward", attacks=True),
    part("lat", "Away", "Toward", keys="adversary_away: 0.5", also=(SEVERAL,), terms="away toward", attacks=True),
    part("refusal_direction", "Toward", terms="toward", attacks=True),
    part("prefill_recovery", "PrefillRecovery", terms="prefill_recovery", attacks=False),
    part("rerouting", "Reroute", "Retain", terms="reroute retain", attacks=False),
    part("triplet", "Gather", "Stay", terms="gather stay", attacks=True),
    part("supervised", "Supervised", terms="refusal", attacks=False),
    part("kl", "KlToBase", beside=SAFE, terms="kl", attacks=False),
    part("spectrum", "Spectrum", beside=SAFE, also=(EMBEDDED,), terms="spectrum", attacks=False),
    part("over_refusal", "Tempted", beside=SAFE, terms="away toward", attacks=True),
)
ROWS_BY_TITLE = {row.title: row for row in ROWS}
