"""The classifiers of texts that attacks are transferred from: loaded as configured, tried against the attacked one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from textadv.data import EncodedRows, Splits
from textadv.models import LoadedModel, LoadedVision, require_embedded
from textadv.models.surrogates import require_same_tokens, require_taken, require_trained
from textadv.tasks.text.config import RunConfig


def text_surrogates(
    config: RunConfig,
    attacked: LoadedModel,
    splits: Splits,
    test: EncodedRows,
    known: Mapping[str, LoadedModel | LoadedVision] = MappingProxyType({}),
) -> dict[str, LoadedModel]:
    """The models of every `name: transfer` in evaluation.attacks, by name, on the CPU.

    attacked: the model that their attacks are put on. test: the rows that are attacked, in its tokens. known: models
    that need not be loaded again.

    Raises ConfigError that names every one which is not there, or not trained for these classes, or differs from
    `attacked` in its tokens or in the shape of a perturbation.
    """
    longest = test.batch([test.lengths.index(max(test.lengths))])

    def load(name: str) -> LoadedModel:
        own = config.model.model_copy(update={"name": name, "lora": None, "revision": None})
        found = known.get(name) or own.make(splits.labels, config.seed)
        assert isinstance(found, LoadedModel)
        require_trained(name, found, splits.labels)
        require_same_tokens(name, found, attacked, splits, test, config.data.max_length)
        require_embedded(name, found.model, found.tokenizer, {"test": test})
        require_taken(found.model, attacked.model, longest, config.threat.make().space)
        return found

    return config.evaluation.surrogates(load)
