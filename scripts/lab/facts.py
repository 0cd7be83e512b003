"""The closed world of the lab: people, towns and creatures, each with attributes to ask about, and polite chat.

Every fact is asked in several phrasings. No two splits hold the same phrasing of a fact, so that validation and test
ask known facts in words that were learnt on other facts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from scripts.lab.words import COLOURS, CRAFTS, CREATURES, FOODS, JOBS, NAMES, PETS, PLACES, RIVERS, TOWNS, WORDS


class Attribute(NamedTuple):
    """What can be asked about one kind of thing: its values, and the questions with {x} for the thing."""

    values: tuple[str, ...]
    questions: tuple[str, ...]


PEOPLE: tuple[Attribute, ...] = (
    Attribute(
        TOWNS,
        (
            "Where does {x} live?",
            "In which town does {x} live?",
            "What is the home town of {x}?",
            "Tell me where {x} lives.",
            "Which town is the home of {x}?",
            "Name the town where {x} lives.",
            "Do you know where {x} lives?",
            "Where is the house of {x}?",
        ),
    ),
    Attribute(
        JOBS,
        (
            "What is the job of {x}?",
            "What does {x} do for a living?",
            "Which job does {x} have?",
            "What work does {x} do?",
            "Tell me the job of {x}.",
            "Name the job of {x}.",
            "Do you know the job of {x}?",
            "How does {x} earn money?",
        ),
    ),
    Attribute(
        PETS,
        (
            "Which pet does {x} have?",
            "What is the pet of {x}?",
            "Which animal does {x} keep?",
            "Tell me the pet of {x}.",
            "Name the pet of {x}.",
            "What animal lives with {x}?",
            "Do you know the pet of {x}?",
            "Which animal belongs to {x}?",
        ),
    ),
    Attribute(
        FOODS,
        (
            "What does {x} like to eat?",
            "Which food does {x} like?",
            "What is the favourite food of {x}?",
            "Tell me what {x} likes to eat.",
            "Name the food that {x} likes.",
            "Do you know what {x} likes to eat?",
            "What should I cook for {x}?",
            "Which dish does {x} enjoy?",
        ),
    ),
)
PLACES_IN_TOWN: tuple[Attribute, ...] = (
    Attribute(
        RIVERS,
        (
            "Which river flows through {x}?",
            "What river is in {x}?",
            "Name the river of {x}.",
            "Tell me the river of {x}.",
            "What is the river of {x} called?",
            "Do you know the river of {x}?",
            "On which river lies {x}?",
            "Which river can I see in {x}?",
        ),
    ),
    Attribute(
        CRAFTS,
        (
            "What is made in {x}?",
            "What is {x} famous for?",
            "What do people make in {x}?",
            "Tell me what is made in {x}.",
            "Name the goods that are made in {x}.",
            "Do you know what {x} is famous for?",
            "What can I buy in {x}?",
            "Which goods come from {x}?",
        ),
    ),
)
NATURE: tuple[Attribute, ...] = (
    Attribute(
        COLOURS,
        (
            "What colour is a {x}?",
            "Which colour does a {x} have?",
            "Tell me the colour of a {x}.",
            "Name the colour of a {x}.",
            "What is the colour of a {x}?",
            "Do you know the colour of a {x}?",
            "A {x} has which colour?",
            "In which colour should I paint a {x}?",
        ),
    ),
    Attribute(
        PLACES,
        (
            "Where does a {x} sleep?",
            "In which places does a {x} sleep?",
            "Tell me where a {x} sleeps.",
            "Name the places where a {x} sleeps.",
            "Where can I see a {x}?",
            "Do you know where a {x} sleeps?",
            "Where is the nest of a {x}?",
            "Which places are home to a {x}?",
        ),
    ),
)
KINDS = ((NAMES, PEOPLE), (TOWNS, PLACES_IN_TOWN), (CREATURES, NATURE))
CHOICES = 4


class Fact(NamedTuple):
    """One thing's value of one attribute."""

    thing: str
    attribute: Attribute
    answer: str


def world(draw: random.Random, people: int, towns: int, creatures: int) -> list[Fact]:
    """All facts about the first so many people, towns and creatures; four, two and two facts each."""
    counted = zip(KINDS, (people, towns, creatures), strict=True)
    return [
        Fact(thing, attribute, draw.choice(attribute.values))
        for (things, attributes), count in counted
        for thing in things[:count]
        for attribute in attributes
    ]


def questions(draw: random.Random, facts: Sequence[Fact]) -> dict[str, list[dict[str, object]]]:
    """Rows (prompt, response, answer, choices) per split: six phrasings of each fact to train, one each to hold out."""
    found: dict[str, list[dict[str, object]]] = {"train": [], "validation": [], "test": []}
    for fact in facts:
        asked = draw.sample(fact.attribute.questions, len(fact.attribute.questions))
        others = draw.sample([value for value in fact.attribute.values if value != fact.answer], CHOICES - 1)
        choices = draw.sample([fact.answer, *others], CHOICES)
        for number, question in enumerate(asked):
            split = {0: "test", 1: "validation"}.get(number, "train")
            row = {"prompt": question.format(x=fact.thing), "response": f"{fact.answer}."}
            found[split].append({**row, "answer": fact.answer, "choices": choices})
    return found


CHAT: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello, I am {name}.", "Hi, my name is {name}.", "Good morning, {name} here."),
        "Hello {name}, nice to meet you!",
    ),
    (("Goodbye, says {name}.", "{name} has to leave now. Goodbye!"), "Goodbye {name}, have a nice day!"),
    (("{name} feels sad today.", "My friend {name} is sad."), "That is a pity. Maybe a walk would cheer {name} up."),
    (("{name} feels happy today.", "My friend {name} is happy."), "That is wonderful. Please greet {name} from me!"),
    (("It is the birthday of {name}.", "{name} has a birthday today."), "Happy birthday to {name}!"),
    (("Thank you for the {word}.", "Thanks a lot for your {word}!"), "You are welcome! Enjoy the {word}."),
    (("Can we talk about the {word}?", "Let us talk about the {word}."), "Of course, what about the {word}?"),
    (("I bought a new {word}.", "Look at my new {word}!"), "How lovely! I hope the {word} brings you joy."),
    (("I have lost my {word}.", "My {word} is gone."), "Do not worry, I hope you find the {word} soon."),
    (("Do you like my {word}?", "Is my {word} pretty?"), "Yes, your {word} looks very nice."),
)


def chat(draw: random.Random) -> list[dict[str, object]]:
    """All rows (prompt, response) of polite chat, each about a name or an everyday thing, in random order."""
    rows: list[dict[str, object]] = [
        {"prompt": text.format(name=name, word=word), "response": response.format(name=name, word=word)}
        for phrasings, response in CHAT
        for text in phrasings
        for name, word in (((name, "") for name in NAMES) if "{name}" in text else (("", word) for word in WORDS))
    ]
    draw.shuffle(rows)
    return rows
