"""Verifiable instructions: whether a response does what its prompt asked, decided by code.

The instructions and their verdicts are those of IFEval (arXiv:2311.07911), written anew from the definitions, plus
"lab:exact". Deviations, each because the package it would need is not a dependency:
- language:response_language is not supported; english_capital and english_lowercase check the case alone.
- sentences and capital words are counted by the rules of `_sentences` and `_capital_words`, not by NLTK.
Keywords are taken letter for letter, not as regular expressions, and letter_frequency counts the character that is
asked for, where IFEval's code puts a random letter in the place of "#" and "!".

Against the verdicts of IFEval's own code on GPT-4's responses of November 2023: 794 of 801 the same strictly, 795
loosely; of the others five are case checks (English in capitals is taken for another language there).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from textadv.data.benchmarks import Instructed, Instruction
from textadv.measuring.statistics import Rate, wilson
from textadv.values.errors import DataError
from textadv.values.host.phases import each
from textadv.values.host.reading import json_of

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]

FENCES = ("```json", "```Json", "```JSON", "```")
CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
POSTSCRIPTS = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
ENDS_WORD = frozenset(".,?!'\"")
ABBREVIATIONS = frozenset("mr mrs ms dr prof st jr sr vs etc inc ltd co corp gen col sen rep fig dept approx".split())
OPENERS = "\"'([{*_\u201c\u2018"
CLOSERS = "\"')]}*_\u201d\u2019"


@dataclass(frozen=True)
class Verdicts:
    """What became of one prompt: per instruction, in its order, True or False, or None where it is not supported."""

    id: str
    instructions: tuple[str, ...]
    strict: tuple[bool | None, ...]
    loose: tuple[bool | None, ...]


@dataclass(frozen=True)
class InstructionFollowing:
    """Rates over prompts all of whose instructions hold, and over single instructions.

    Prompts with an instruction that is not supported are in no prompt-level rate and counted in `prompts_left_out`;
    unsupported: id -> how often it occurs; these are in no instruction-level rate. rows: one per prompt, all of them.
    """

    prompt_strict: Rate
    instruction_strict: Rate
    prompt_loose: Rate
    instruction_loose: Rate
    prompts_left_out: int
    unsupported: dict[str, int]
    rows: tuple[Verdicts, ...]


def instruction_following(prompts: Sequence[Instructed], responses: Sequence[str]) -> InstructionFollowing:
    """How many prompts and instructions the responses follow, strictly and loosely, with Wilson intervals.

    responses: one per prompt, in their order.
    Raises ValueError where their numbers differ and DataError where an instruction lacks an argument.
    """
    if len(prompts) != len(responses):
        raise ValueError(f"Each prompt needs one response, got {len(prompts)} prompts and {len(responses)} responses.")
    pairs = each("checking instructions", zip(prompts, responses, strict=True), len(prompts), "answers")
    rows = tuple(_verdicts(prompt, response) for prompt, response in pairs)
    whole = [row for row in rows if None not in row.strict]
    unsupported = Counter(
        name for row in rows for name, held in zip(row.instructions, row.strict, strict=True) if held is None
    )
    return InstructionFollowing(
        prompt_strict=wilson(sum(all(row.strict) for row in whole), len(whole)),
        instruction_strict=_over_instructions([row.strict for row in rows]),
        prompt_loose=wilson(sum(all(row.loose) for row in whole), len(whole)),
        instruction_loose=_over_instructions([row.loose for row in rows]),
        prompts_left_out=len(rows) - len(whole),
        unsupported=dict(unsupported),
        rows=rows,
    )


def _over_instructions(verdicts: Sequence[tuple[bool | None, ...]]) -> Rate:
    known = [held for row in verdicts for held in row if held is not None]
    return wilson(sum(known), len(known))


def _verdicts(prompt: Instructed, response: str) -> Verdicts:
    return Verdicts(
        id=prompt.id,
        instructions=tuple(instruction.id for instruction in prompt.instructions),
        strict=tuple(follows(response, instruction) for instruction in prompt.instructions),
        loose=tuple(follows(response, instruction, loose=True) for instruction in prompt.instructions),
    )


def follows(response: str, instruction: Instruction, *, loose: bool = False) -> bool | None:
    """Whether the response follows the instruction; None where the instruction is not supported.

    loose: also where one of IFEval's milder readings does: without its first line, its last line or both, and each of
    these without asterisks. An empty response follows nothing.

    Raises DataError where the instruction lacks an argument, or has one that means nothing.
    """
    check = CHECKS.get(instruction.id)
    if check is None:
        return None
    try:
        readings = _loose_readings(response) if loose else [response]
        return any(bool(reading.strip()) and check(reading, instruction.arguments) for reading in readings)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The instruction {instruction.id} cannot be checked with the arguments {dict(instruction.arguments)}: "
            f"{type(error).__name__} {error}. Correct kwargs in the file of prompts."
        ) from error


def _loose_readings(response: str) -> list[str]:
    lines = response.split("\n")
    kept = (lines[1:], lines[:-1], lines[1:-1])
    readings = [response, *("\n".join(part).strip() for part in kept)]
    return readings + [reading.replace("*", "") for reading in readings]


def _compared(count: int, relation: str, threshold: int) -> bool:
    if relation not in ("less than", "at least"):
        raise ValueError(f"a relation is 'less than' or 'at least', got {relation!r}")
    return count < threshold if relation == "less than" else count >= threshold


def _number(given: Arguments, name: str) -> int:
    value = given[name]
    # Some copies of the file went through a table and have 3.0 for 3.
    if not isinstance(value, int | float) or value != int(value):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    return int(value)


def _text(given: Arguments, name: str) -> str:
    value = given[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text, got {value!r}")
    return value


def _texts(given: Arguments, name: str) -> list[str]:
    value = given[name]
    if not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
        raise TypeError(f"{name} must be a list of texts, got {value!r}")
    return value


# ---- keywords


def _occurrences(keyword: str, text: str) -> int:
    return len(re.findall(re.escape(keyword), text, flags=re.IGNORECASE))


def _no_forbidden_words(text: str, given: Arguments) -> bool:
    words = _texts(given, "forbidden_words")
    return not any(re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE) for word in words)


# ---- lengths


def _sentences(text: str) -> int:
    """How many sentences: one more than the words, but for the last, that end one."""
    words = text.split()
    ends = sum(_ends_sentence(word, following) for word, following in pairwise(words))
    return ends + bool(words)


def _ends_sentence(word: str, following: str) -> bool:
    """Whether `word` is the last of its sentence: it ends in "!", "?" or a full stop that belongs to no abbreviation.

    After a number, an initial or an ellipsis the next word decides, by its capital.
    """
    bare = word.rstrip(CLOSERS)
    if bare.endswith(("!", "?")):
        return True
    if not bare.endswith("."):
        return False
    capital = following.lstrip(OPENERS)[:1].isupper()
    stem = bare.rstrip(".").lstrip(OPENERS).lower()
    if stem in ABBREVIATIONS or (len(stem) == 1 and stem.isalpha() and stem != "i"):
        return False
    if bare.endswith("..") or stem.isdigit() or ("." in stem and all(len(part) == 1 for part in stem.split("."))):
        return capital
    return True


def _number_of_paragraphs(text: str, given: Arguments) -> bool:
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    inner = parts[1:-1]
    return all(inner) and sum(map(bool, parts)) == _number(given, "num_paragraphs")


def _first_word_of_paragraph(text: str, given: Arguments) -> bool:
    """Paragraphs stand between blank lines; the place counts empty ones, their number does not."""
    paragraphs = [part.strip() for part in text.split("\n\n")]
    place, count = _number(given, "nth_paragraph"), sum(map(bool, paragraphs))
    expected = _text(given, "first_word").lower()
    if count != _number(given, "num_paragraphs") or place > count or not paragraphs[place - 1]:
        return False
    word = paragraphs[place - 1].split()[0].lstrip("'").lstrip('"')
    end = next((n for n, letter in enumerate(word) if letter in ENDS_WORD), len(word))
    return word[:end].lower() == expected


# ---- content and format


def _postscript(text: str, given: Arguments) -> bool:
    marker = _text(given, "postscript_marker")
    return re.search(POSTSCRIPTS.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _bullets(text: str, given: Arguments) -> bool:
    stars = re.findall(r"^\s*\*[^*].*$", text, flags=re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, flags=re.MULTILINE)
    return len(stars) + len(dashes) == _number(given, "num_bullets")


def _highlights(text: str, given: Arguments) -> bool:
    """Spans in single and in double asterisks that hold more than blanks; those in double ones may count for both."""
    single = [span for span in re.findall(r"\*[^\n*]*\*", text) if span.strip("*").strip()]
    double = [span for span in re.findall(r"\*\*[^\n*]*\*\*", text) if span[2:-2].strip()]
    return len(single) + len(double) >= _number(given, "num_highlights")


def _sections(text: str, given: Arguments) -> bool:
    splitter = rf"\s?{re.escape(_text(given, 'section_spliter'))}\s?\d+\s?"
    return len(re.findall(splitter, text)) >= _number(given, "num_sections")


def _json(text: str, given: Arguments) -> bool:
    body = text.strip()
    for fence in FENCES:
        body = body.removeprefix(fence)
    try:
        json_of(body.removesuffix("```").strip())
    except ValueError:
        return False
    return True


def _title(text: str, given: Arguments) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


# ---- combinations, beginning and end, case, punctuation


def _two_responses(text: str, given: Arguments) -> bool:
    parts = [part.strip() for part in text.split("******")]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def _quoted(text: str, given: Arguments) -> bool:
    body = text.strip()
    return len(body) > 1 and body[0] == body[-1] == '"'


def _capital_words(text: str) -> int:
    """Words all in capitals; "I'M" is two, and so are words joined by anything but a hyphen, a slash or a dot."""
    words = re.split(r"""[\s;@#$%&?!"“”()\[\]{}<>]+|[,:](?!\d)|--+|\.{2,}""", text)
    parts = (part for word in words for part in re.split(r"(?i)(?=n't$|'(?:s|m|d|ll|re|ve)$)", word))
    return sum(part.isupper() for part in parts)


def _exact(text: str, given: Arguments) -> bool:
    """The lab's own: nothing but `text` (or `answer`, as it is also called)."""
    return text.strip() == _text(given, "text" if "text" in given else "answer").strip()


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda text, given: all(_occurrences(word, text) for word in _texts(given, "keywords")),
    "keywords:frequency": lambda text, given: _compared(
        _occurrences(_text(given, "keyword"), text), given["relation"], _number(given, "frequency")
    ),
    "keywords:forbidden_words": _no_forbidden_words,
    "keywords:letter_frequency": lambda text, given: _compared(
        text.lower().count(_text(given, "letter").lower()), given["let_relation"], _number(given, "let_frequency")
    ),
    "length_constraints:number_sentences": lambda text, given: _compared(
        _sentences(text), given["relation"], _number(given, "num_sentences")
    ),
    "length_constraints:number_paragraphs": _number_of_paragraphs,
    "length_constraints:number_words": lambda text, given: _compared(
        len(re.findall(r"\w+", text)), given["relation"], _number(given, "num_words")
    ),
    "length_constraints:nth_paragraph_first_word": _first_word_of_paragraph,
    "detectable_content:number_placeholders": lambda text, given: (
        len(re.findall(r"\[.*?\]", text)) >= _number(given, "num_placeholders")
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text, given: any(option in text for option in CONSTRAINED),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, given: (
        text.strip().lower().startswith(_text(given, "prompt_to_repeat").strip().lower())
    ),
    "startend:end_checker": lambda text, given: (
        text.strip().strip('"').lower().endswith(_text(given, "end_phrase").strip().lower())
    ),
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": lambda text, given: _compared(
        _capital_words(text), given["capital_relation"], _number(given, "capital_frequency")
    ),
    "change_case:english_capital": lambda text, given: text.isupper(),
    "change_case:english_lowercase": lambda text, given: text.islower(),
    "punctuation:no_comma": lambda text, given: "," not in text,
    "lab:exact": _exact,
}
"""What decides each instruction: (response that is not blank, arguments) -> whether it holds."""
