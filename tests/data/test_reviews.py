"""The built-in made-up reviews: sizes, seeds, words and templates apart by split, labels that follow from the text."""

from __future__ import annotations

import random
import re

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from textadv.data import EncodedRows, Examples, Splits, encode, reviews, reviews_tokenizer
from textadv.data.lexicon import FUNCTION_WORDS, NEGATORS, TEST, TRAIN, VALIDATION, WEIGHTS, Lexicon

AFFIXES = {"ful": 1, "less": -1, "well-": 1, "ill-": -1, "un": -1}
TOKEN = re.compile(r"well-|ill-|un(?=[a-z]{3})|(?:ful|less)\b|[a-z]+?(?=(?:ful|less)\b)|[a-z]+|[,;]")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return reviews()


def by_name(splits: Splits) -> dict[str, tuple[Examples, Lexicon]]:
    return {
        "train": (splits.train, TRAIN),
        "validation": (splits.validation, VALIDATION),
        "test": (splits.test, TEST),
    }


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text.lower())


def disjoint(groups: list[set[str]]) -> bool:
    return len(set().union(*groups)) == sum(len(group) for group in groups)


def test_sizes_balance_and_ids(splits: Splits) -> None:
    sizes = {name: len(examples) for name, (examples, _) in by_name(splits).items()}
    assert sizes == {"train": 3200, "validation": 600, "test": 600}
    for examples, _ in by_name(splits).values():
        assert 0.45 <= sum(examples.labels) / len(examples) <= 0.55
        assert examples.ids == tuple(range(len(examples)))
        assert examples.pairs is None
    assert splits.labels == ("negative", "positive")


def test_all_reviews_are_distinct(splits: Splits) -> None:
    texts = [text for examples, _ in by_name(splits).values() for text in examples.texts]
    assert len(texts) >= 4000
    assert len({text.lower() for text in texts}) == len(texts)


def test_a_seed_gives_one_data_set(splits: Splits) -> None:
    assert reviews(0) == splits
    assert set(reviews(1).train.texts) != set(splits.train.texts)


def test_the_global_random_state_is_neither_used_nor_changed(splits: Splits) -> None:
    random.seed(5)
    before = random.getstate()
    assert reviews() == splits
    assert random.getstate() == before


def test_open_class_words_occur_in_one_split_only(splits: Splits) -> None:
    used = []
    for examples, lexicon in by_name(splits).values():
        words = {token for text in examples.texts for token in tokens(text)} - set(",;") - set(AFFIXES) - FUNCTION_WORDS
        assert words == lexicon.words
        used.append(set(words))
    assert disjoint(used)


def test_train_uses_every_function_word(splits: Splits) -> None:
    assert {token for text in splits.train.texts for token in tokens(text)} >= FUNCTION_WORDS


def clauses(text: str) -> list[str]:
    body = re.sub(r"^(although|while) ", "", text.lower().rstrip("."))
    return re.split(r", (?:and|but|yet) |; | and |, ", body)


def template(clause: str) -> str:
    """The clause with open-class words blanked, without negator and intensifier."""
    dropped = {*NEGATORS, *WEIGHTS}
    words = ["a" if word == "an" else word for word in re.findall(r"[a-z-]+", clause) if word not in dropped]
    return " ".join(word if word in FUNCTION_WORDS else "_" for word in words)


def test_templates_occur_in_one_split_only(splits: Splits) -> None:
    templates = [
        {template(clause) for text in examples.texts for clause in clauses(text)}
        for examples, _ in by_name(splits).values()
    ]
    assert min(len(found) for found in templates) >= 12
    assert disjoint(templates)


def clause_value(clause: str) -> int:
    """The judgement of one clause, read off its text by the documented rules."""
    found = tokens(clause)
    (sign,) = [AFFIXES[token] for token in found if token in AFFIXES]
    if any(negator in found for negator in NEGATORS):
        return -2 * sign
    return sign * next((WEIGHTS[token] for token in found if token in WEIGHTS), 2)


def read_label(text: str) -> int:
    values = [clause_value(clause) for clause in clauses(text)]
    contrast = re.match(r"although |while ", text.lower()) or re.search(r", (but|yet) ", text)
    total = values[-1] if contrast else sum(values)
    assert total != 0
    return int(total > 0)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The lamp was helpful.", 1),
        ("The lamp was hardly helpful.", 0),
        ("The lamp was never unlit.", 1),
        ("The lamp was graceful, but the sofa was utterly ill-made.", 0),
        ("Although the lamp was graceless, the sofa was somewhat well-made.", 1),
        ("The lamp was slightly graceful and the sofa is utterly tasteless.", 0),
        ("The lamp was not graceful and the sofa is extremely tasteful.", 1),
    ],
)
def test_the_rules_by_hand(text: str, label: int) -> None:
    assert read_label(text) == label


def test_labels_follow_from_the_texts(splits: Splits) -> None:
    for examples, _ in by_name(splits).values():
        assert [read_label(text) for text in examples.texts] == list(examples.labels)


def test_every_device_is_common(splits: Splits) -> None:
    texts = splits.train.texts
    share = {
        "negation": sum(any(word in tokens(text) for word in NEGATORS) for text in texts),
        "intensifier": sum(any(word in tokens(text) for word in WEIGHTS) for text in texts),
        "contrast": sum(bool(re.search(r"^(Although|While) |, (but|yet) ", text)) for text in texts),
        "mixed sum": sum(
            len(values) == 2 and values[0] * values[1] < 0 and not re.search(r"^(Although|While) |, (but|yet) ", text)
            for text in texts
            for values in [[clause_value(clause) for clause in clauses(text)]]
        ),
    }
    assert share["negation"] > 0.3 * len(texts)
    assert share["intensifier"] > 0.2 * len(texts)
    assert share["contrast"] > 0.3 * len(texts)
    assert share["mixed sum"] > 0.08 * len(texts)


def counted(texts: tuple[str, ...], vocabulary: dict[str, int]) -> torch.Tensor:
    counts = torch.zeros(len(texts), len(vocabulary))
    for row, text in enumerate(texts):
        for token in tokens(text):
            if token in vocabulary:
                counts[row, vocabulary[token]] += 1
    return counts


def keyword_accuracy(train: Examples, test: Examples) -> tuple[float, float]:
    """Accuracy on train and test of a logistic regression on counts of words, affixes and negators."""
    known = sorted({token for text in train.texts for token in tokens(text)})
    vocabulary = {token: place for place, token in enumerate(known)}
    features = counted(train.texts, vocabulary)
    labels = torch.tensor(train.labels, dtype=torch.float)
    weight = torch.zeros(len(vocabulary), requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(features @ weight + bias, labels)
        (loss + 1e-3 * weight.square().sum()).backward()
        optimizer.step()

    def accuracy(counts: torch.Tensor, expected: tuple[int, ...]) -> float:
        return ((counts @ weight + bias > 0).long() == torch.tensor(expected)).float().mean().item()

    return accuracy(features, train.labels), accuracy(counted(test.texts, vocabulary), test.labels)


def test_counting_keywords_does_not_solve_it(splits: Splits) -> None:
    _, test = keyword_accuracy(splits.train, splits.test)
    assert test < 0.8


def test_the_keyword_baseline_is_a_fair_one(splits: Splits) -> None:
    """On single clauses without negation, where keywords do decide, the same baseline is right."""

    def plain(examples: Examples) -> Examples:
        easy = [i for i, text in enumerate(examples.texts) if len(clauses(text)) == 1]
        return examples.select([i for i in easy if not set(NEGATORS) & set(tokens(examples.texts[i]))])

    _, test = keyword_accuracy(plain(splits.train), plain(splits.test))
    assert test > 0.95


def accuracy_of(model: BertForSequenceClassification, rows: EncodedRows) -> float:
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(**batch.inputs).logits.argmax(-1) == batch.labels).sum())
            for start in range(0, len(rows), 100)
            for batch in [rows.batch(range(start, min(start + 100, len(rows))))]
        )
    return right / len(rows)


@pytest.mark.slow
def test_a_tiny_encoder_learns_it_and_carries_over(splits: Splits) -> None:
    tokenizer = reviews_tokenizer()
    train, test = encode(splits.train, tokenizer, 128), encode(splits.test, tokenizer, 128)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=128,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = BertForSequenceClassification(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        steps = 800
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (0.1 * steps), (steps - step) / steps)
        )
        for _ in range(steps):
            batch = train.batch(torch.randint(len(train), (32,)).tolist())
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(**batch.inputs).logits, batch.labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    assert accuracy_of(model, test) >= 0.9
