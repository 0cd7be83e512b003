"""What a configuration says of the head that classifies: its classes, how it is read, what it returns."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from peft import TaskType
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForSequenceClassification,
    BertForTokenClassification,
    PretrainedConfig,
)

from textadv.values.errors import ModelError

SINGLE_LABEL: Literal["single_label_classification"] = "single_label_classification"


@dataclass(frozen=True)
class Head:
    """What a model of texts decides, and who builds it.

    auto: transformers' class. known: the configurations that it knows. ending: how the names of classes with this head
    end. task: PEFT's name of it. tiny: the class of the built-in encoder. called: what errors call such a model;
    instead: models that have one, as a remedy.
    """

    auto: Any
    known: Container[type[PretrainedConfig]]
    ending: str
    task: TaskType
    tiny: Any
    called: str
    instead: str


OF_TEXTS = Head(
    AutoModelForSequenceClassification,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "ForSequenceClassification",
    TaskType.SEQ_CLS,
    BertForSequenceClassification,
    "text classifier",
    "an encoder such as BERT, a decoder such as Llama, or of encoder-decoders a BART, mBART, T5, mT5, UMT5 or T5Gemma",
)
"""One class for a text."""
OF_TOKENS = Head(
    AutoModelForTokenClassification,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    "ForTokenClassification",
    TaskType.TOKEN_CLS,
    BertForTokenClassification,
    "token classifier",
    "an encoder such as BERT, RoBERTa, DeBERTa or ModernBERT",
)
"""A class for each token."""


def require_classifier(name: str, config: PretrainedConfig, head: Head = OF_TEXTS) -> None:
    """Raises ModelError, before any weight is read, where transformers has no classifier of this architecture.

    Code that the model's repository brings along is believed.
    """
    brought = config.to_dict().get("auto_map") or {}
    if type(config) in head.known or head.auto.__name__ in brought:
        return
    kind = "an encoder-decoder" if config.is_encoder_decoder else "a model"
    raise ModelError(
        f"model.name {name!r} could not be loaded: it is {kind} of type {config.model_type}, and transformers has no "
        f"{head.called} of that type. Name {head.instead}."
    )


def check_labels(name: str, config: Any, labels: Sequence[str], head: str = "ForSequenceClassification") -> None:
    """Raises ModelError unless a checkpoint that already classifies has the same classes in the same order.

    head: how the names of classes with a head for the task end.
    """
    trained = any(head in kind for kind in config.architectures or ())
    if not trained:
        return
    if config.num_labels == 1:
        raise ModelError(
            f"model.name {name!r} is a regression model (num_labels: 1 in its config.json): it gives a score and "
            "chooses no class. Use a base model without a head, or one that classifies."
        )
    check_names(name, trained_names(name, config), labels)


def trained_names(name: str, config: PretrainedConfig) -> list[str]:
    """The classes that config.json names, in their order: by id2label or, where that names none, by label2id.

    Raises ModelError where their numbers are not 0 to num_labels - 1.
    """
    known: dict[Any, Any] = dict(config.id2label or {})
    numbers = list(range(len(known)))
    if sorted(known) != numbers:
        raise ModelError(
            f"model.name {name!r}: its config.json numbers the classes {', '.join(map(str, sorted(known)[:10]))} "
            f"(id2label), and the outputs of a head are counted from 0. Write id2label with the keys 0 to "
            f"{len(known) - 1}, in the order of the outputs."
        )
    given = {number: str(label) for label, number in (config.label2id or {}).items()}
    unnamed = all(str(known[n]) == f"LABEL_{n}" for n in numbers)
    return [given[n] if unnamed and sorted(given) == numbers else str(known[n]) for n in numbers]


def check_names(name: str, trained: Sequence[str], labels: Sequence[str]) -> None:
    """Raises ModelError unless there are as many classes as a head was trained for, in the same order."""
    if len(trained) != len(labels):
        raise ModelError(
            f"model.name {name!r} was trained for {len(trained)} classes and the data has {len(labels)}: "
            f"{', '.join(labels)}. Use a base model without a head, or data with the model's classes."
        )
    own = [label.lower() for label in trained]
    spelled = {label.lower(): label for label in labels}
    if own != list(spelled) and sorted(own) == sorted(spelled):
        right = ", ".join(spelled[label] for label in own)
        raise ModelError(
            f"model.name {name!r} orders its classes {', '.join(own)} and the data {', '.join(labels)}: labels would "
            f"be mistaken for one another. Set data.labels: [{right}]."
        )


def read_as_classes(name: str, config: PretrainedConfig, head: str = "ForSequenceClassification") -> tuple[str, ...]:
    """Makes a configuration say that its head chooses one class, as it is trained and measured here.

    head: as in `check_labels`. A sentence for the report where a trained head said something else.
    """
    said, config.problem_type = config.problem_type, SINGLE_LABEL
    trained = any(head in kind for kind in config.architectures or ())
    if not trained or said in (None, SINGLE_LABEL):
        return ()
    return (
        f"model: the config.json of {name} says problem_type: {said}. Its outputs are read as a choice of one class "
        f"here, and exported so ({SINGLE_LABEL}).",
    )


def return_logits(config: PretrainedConfig) -> None:
    """Makes a configuration ask for an output object with logits and no more.

    One that was saved with `output_attentions` can be trained and, with the attention of today, not be saved.
    """
    config.return_dict = True
    config.output_hidden_states = False
    config.output_attentions = False


def name_classes(config: PretrainedConfig, labels: Sequence[str]) -> None:
    """Gives a configuration these classes, in this order."""
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: n for n, label in enumerate(labels)}


def labels_of(config: PretrainedConfig, count: int | None = None) -> list[str]:
    """The classes that a configuration names, in order; numbers where a head has another `count` of them."""
    known = [str(name) for _, name in sorted((config.id2label or {}).items())]
    return known if count in (None, len(known)) else [f"LABEL_{n}" for n in range(count or 0)]
