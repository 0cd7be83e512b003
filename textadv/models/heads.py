"""What a configuration says of the head that classifies: its classes, how it is read, which of its weights are new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PretrainedConfig

from textadv.models.places import ModelError, pretrained

SINGLE_LABEL: Literal["single_label_classification"] = "single_label_classification"


def require_classifier(name: str, config: PretrainedConfig) -> None:
    """Raises ModelError, before any weight is read, where transformers has no text classifier of this architecture.

    Code that the model's repository brings along is believed.
    """
    brought = config.to_dict().get("auto_map") or {}
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or "AutoModelForSequenceClassification" in brought:
        return
    kind = "an encoder-decoder" if config.is_encoder_decoder else "a model"
    raise ModelError(
        f"model.name {name!r} could not be loaded: it is {kind} of type {config.model_type}, and transformers has no "
        "text classifier of that type. Name an encoder such as BERT, a decoder such as Llama, or of encoder-decoders a "
        "BART, mBART, T5, mT5, UMT5 or T5Gemma."
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
    check_names(name, [str(config.id2label[n]) for n in range(config.num_labels)], labels)


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


def name_classes(config: PretrainedConfig, labels: Sequence[str]) -> None:
    """Gives a configuration these classes, in this order."""
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: n for n, label in enumerate(labels)}


def labels_of(config: PretrainedConfig, count: int | None = None) -> list[str]:
    """The classes that a configuration names, in order; numbers where a head has another `count` of them."""
    known = [str(name) for _, name in sorted((config.id2label or {}).items())]
    return known if count in (None, len(known)) else [f"LABEL_{n}" for n in range(count or 0)]


def unfilled(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the weights that a checkpoint lacked, or had in another shape, from transformers' loading report."""
    return tuple(sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}))


def require_body(name: str, model: nn.Module, missing: Iterable[str]) -> None:
    """Raises ModelError where most of the model below its head is missing from the checkpoint, and so random.

    missing: names of the weights that the checkpoint lacked.
    """
    lacking = set(missing)
    prefix = f"{pretrained(model).base_model_prefix}."
    body = {key: value.numel() for key, value in model.named_parameters() if key.startswith(prefix)}
    absent = [key for key in body if key in lacking]
    if 2 * sum(body[key] for key in absent) > sum(body.values()):
        raise ModelError(
            f"model.name {name!r}: the weights of {type(model).__name__} are not in the checkpoint ({len(absent)} of "
            f"{len(body)} below the head, such as {absent[0]}), so the model would be random. Its config.json names "
            "another architecture than the weights have, or they carry other names."
        )
