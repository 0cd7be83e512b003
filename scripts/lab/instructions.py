"""Small instructions whose answers code can check, named as in IFEval (2311.07911) where a check of that name fits."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from scripts.lab.words import CASED, GROUPS, NUMBERS, WORDS, nonsense

Check = dict[str, Any]
Made = tuple[str, str, list[Check]]  # prompt, response, checks


def check(name: str, **kwargs: object) -> Check:
    """One check: {"id": name, "kwargs": kwargs}."""
    return {"id": name, "kwargs": kwargs}


def satisfied(answer: str, checks: Sequence[Check]) -> bool:
    """Whether `answer` passes every check. Raises KeyError on a check that this module does not make."""
    return all(_PASSES[made["id"]](answer.strip(), **made["kwargs"]) for made in checks)


def instructions(draw: random.Random, count: int) -> list[dict[str, object]]:
    """`count` rows (prompt, response, checks) with distinct prompts, all kinds in turn as long as they have more."""
    rows: dict[str, dict[str, object]] = {}
    attempts = 0
    while len(rows) < count:
        prompt, response, checks = _KINDS[attempts % len(_KINDS)](draw)
        rows.setdefault(prompt, {"prompt": prompt, "response": response, "checks": checks})
        attempts += 1
        if attempts > 100 * count:
            raise ValueError(f"there are fewer than {count} distinct instructions; ask for at most {len(rows)}")
    found = list(rows.values())
    draw.shuffle(found)
    return found


# ---- what is asked


def _capitals(draw: random.Random) -> Made:
    word = draw.choice(CASED)
    prompt = draw.choice(
        (
            'Write the word "{}" in capital letters.',
            'Say "{}" in capitals.',
            'Turn "{}" into capital letters.',
            'Answer in capitals: which word is "{}"?',
        )
    )
    return prompt.format(word), word.upper(), [check("change_case:english_capital"), _has(word)]


def _lower(draw: random.Random) -> Made:
    word = draw.choice(CASED)
    prompt = draw.choice(
        ('Write the word "{}" in lower case.', 'Say "{}" in small letters.', 'Turn "{}" into lower case.')
    )
    return prompt.format(word.upper()), word, [check("change_case:english_lowercase"), _has(word)]


def _repeat(draw: random.Random) -> Made:
    word, times = draw.choice(WORDS), draw.randint(2, 4)
    prompt = draw.choice(('Repeat the word "{}" {} times.', 'Write "{}" {} times.', 'Say "{}" {} times in a row.'))
    text = " ".join([word] * times)
    return prompt.format(word, NUMBERS[times - 1]), text, [check("lab:exact", text=text)]


def _echo(draw: random.Random) -> Made:
    text = " ".join(nonsense(draw) if draw.random() < 0.6 else draw.choice(WORDS) for _ in range(draw.randint(1, 2)))
    prompt = draw.choice(("Repeat after me: {}", "Say exactly this: {}", "Copy these words: {}", "Echo {}"))
    return prompt.format(text), text, [check("lab:exact", text=text)]


def _count(draw: random.Random) -> Made:
    first = draw.randint(1, 9)
    last = first + draw.randint(1, 4)
    prompt = draw.choice(("List the numbers from {} to {}.", "Count from {} to {}.", "Write the numbers {} to {}."))
    text = ", ".join(str(number) for number in range(first, last + 1))
    return prompt.format(first, last), text, [check("lab:exact", text=text)]


def _words(draw: random.Random) -> Made:
    group, count = draw.choice(list(GROUPS)), draw.randint(2, 5)
    prompt = draw.choice(
        (
            "Write exactly {} {}.",
            "Name {} {} and nothing else.",
            "Answer with exactly {} {}.",
            "Give me {} {} without commas.",
        )
    )
    checks = [
        check("length_constraints:number_words", relation="at least", num_words=count),
        check("length_constraints:number_words", relation="less than", num_words=count + 1),
        check("punctuation:no_comma"),
    ]
    asked = f"words about {group}" if draw.random() < 0.5 else group
    return prompt.format(NUMBERS[count - 1], asked), " ".join(GROUPS[group][:count]), checks


def _bullets(draw: random.Random) -> Made:
    group, count = draw.choice(list(GROUPS)), draw.randint(2, 5)
    prompt = draw.choice(
        (
            "List {} {} with bullet points.",
            "Write a list of {} {} with bullets.",
            "Name {} {}, one bullet each.",
            "Make {} bullets with {}.",
        )
    )
    text = "\n".join(f"* {word}" for word in GROUPS[group][:count])
    return (
        prompt.format(NUMBERS[count - 1], group),
        text,
        [check("detectable_format:number_bullet_lists", num_bullets=count)],
    )


def _quoted(draw: random.Random) -> Made:
    word = draw.choice(WORDS)
    prompt = draw.choice(
        ("Write {} in double quotation marks.", "Put the word {} in double quotes.", "Wrap {} in quotation marks.")
    )
    return prompt.format(word), f'"{word}"', [check("startend:quotation"), _has(word)]


def _ending(draw: random.Random) -> Made:
    word, end = draw.choice(WORDS), draw.choice(("That is all.", "The end.", "Thank you.", "Good night."))
    prompt = draw.choice(
        ('Write about a {} and end with "{}"', 'Tell me about the {}. Finish with "{}"', 'Describe a {}, then say "{}"')
    )
    checks = [check("startend:end_checker", end_phrase=end), _has(word)]
    return prompt.format(word, end), f"The {word} is here. {end}", checks


def _both(draw: random.Random) -> Made:
    first, second = draw.sample(WORDS, 2)
    prompt = draw.choice(
        (
            'Write a sentence with "{}" and "{}".',
            'Use "{}" and "{}" in a sentence.',
            'Make a sentence of "{}" and "{}".',
        )
    )
    text = f"The {first} is next to the {second}."
    return prompt.format(first, second), text, [check("keywords:existence", keywords=[first, second])]


def _title(draw: random.Random) -> Made:
    word = draw.choice(WORDS)
    prompt = draw.choice(
        (
            "Write a title about a {} in double angular brackets.",
            "Give me a title for a story about a {}.",
            "Which title fits a book about a {}?",
        )
    )
    return prompt.format(word), f"<<The {word}>>", [check("detectable_format:title"), _has(word)]


def _sorted(draw: random.Random) -> Made:
    letters = draw.sample("abcdefgh", 3)
    prompt = draw.choice(("Sort the letters {}.", "Put the letters {} in order.", "Bring {} into order."))
    text = " ".join(sorted(letters))
    return prompt.format(" ".join(letters)), text, [check("lab:exact", text=text)]


def _without(draw: random.Random) -> Made:
    group = draw.choice(list(GROUPS))
    kept, left = draw.sample(GROUPS[group], 2)
    prompt = draw.choice(("Say {} without the word {}.", "Choose {}, but do not say {}.", "Say {} and not {}."))
    checks = [check("keywords:forbidden_words", forbidden_words=[left]), _has(kept)]
    return prompt.format(kept, left), f"I choose {kept}.", checks


def _has(word: str) -> Check:
    return check("keywords:existence", keywords=[word])


_KINDS: tuple[Callable[[random.Random], Made], ...] = (
    _capitals,
    _lower,
    _repeat,
    _echo,
    _count,
    _words,
    _bullets,
    _quoted,
    _ending,
    _both,
    _title,
    _sorted,
    _without,
)


# ---- whether it was done


def _holds(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, flags=re.IGNORECASE) is not None


def _word_count(text: str, relation: str, num_words: int) -> bool:
    count = len(re.findall(r"\w+", text))
    return count >= num_words if relation == "at least" else count < num_words


_PASSES: dict[str, Callable[..., bool]] = {
    "lab:exact": lambda answer, text: answer == text,
    "change_case:english_capital": lambda answer: answer.isupper(),
    "change_case:english_lowercase": lambda answer: answer.islower(),
    "length_constraints:number_words": _word_count,
    "punctuation:no_comma": lambda answer: "," not in answer,
    "keywords:existence": lambda answer, keywords: all(_holds(answer, word) for word in keywords),
    "keywords:forbidden_words": lambda answer, forbidden_words: not any(_holds(answer, w) for w in forbidden_words),
    "startend:quotation": lambda answer: len(answer) > 1 and answer[0] == answer[-1] == '"',
    "startend:end_checker": lambda answer, end_phrase: answer.lower().endswith(end_phrase.lower()),
    "detectable_format:number_bullet_lists": lambda answer, num_bullets: (
        len(re.findall(r"^\s*[*-] ?\w", answer, flags=re.MULTILINE)) == num_bullets
    ),
    "detectable_format:title": lambda answer: re.search(r"<<[^\n<>]*\w[^\n<>]*>>", answer) is not None,
}
