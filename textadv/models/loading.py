"""Loading a classifier and its tokenizer: from the Hub, a folder, an adapter folder, or the built-in tiny encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from textadv.data import reviews_tokenizer
from textadv.models.adapters import HEADS, Adapter, find_adapter
from textadv.models.adapting import Lora, attach, new_adapter
from textadv.models.export import save_adapter, save_merged
from textadv.models.filled import left_out, require_body, require_shapes, unfilled
from textadv.models.finite import require_finite_weights
from textadv.models.heads import (
    OF_TEXTS,
    SINGLE_LABEL,
    Head,
    check_labels,
    check_names,
    labels_of,
    name_classes,
    read_as_classes,
    require_classifier,
    return_logits,
)
from textadv.models.places import pretrained
from textadv.models.sizes import bounded, require_counts
from textadv.models.sources import (
    TOKENIZER_REMEDY,
    UNUSABLE,
    quiet,
    require_folder,
    require_safetensors,
    require_tokenizer,
    told,
)
from textadv.models.vocabulary import fit_vocabulary
from textadv.values.errors import ModelError
from textadv.values.randomness import seeded_scope

TINY_ENCODER = "builtin:tiny-encoder"
TINY_SEED = 0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A classifier or a causal model with its tokenizer.

    initialised: names of weights that the checkpoint lacked (a new head). notes: what the report must say of it.
    embeddings: whether an adapter brought embeddings of its own, which are saved with it.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    initialised: tuple[str, ...]
    notes: tuple[str, ...] = ()
    embeddings: bool = False

    def save(self, folder: Path, *, merged: bool = False) -> None:
        """Writes what training changed, see `save_adapter`; or a plain model, see `save_merged`."""
        if merged:
            save_merged(self.model, self.tokenizer, folder)
        else:
            save_adapter(self.model, self.tokenizer, folder, embeddings=self.embeddings)


def load_classifier(
    name: str,
    labels: Sequence[str],
    *,
    seed: int = 0,
    revision: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    gradient_checkpointing: bool = False,
    lora: Lora | None = None,
    head: Head = OF_TEXTS,
) -> LoadedModel:
    """A classifier over `labels` with its tokenizer, new weights drawn from `seed` alone.

    name: a Hub id or a folder of a model or of a PEFT adapter, or "builtin:tiny-encoder".
    head: what is classified, whole texts or (`OF_TOKENS`) each token.
    lora: adapters to train, on top of frozen weights; None leaves every weight trainable. Weights that the checkpoint
        lacked are trained and saved whole. An adapter brings its own and takes none.

    Raises ModelError where nothing usable is found, the checkpoint's classes do not fit `labels`, the tokenizer has
    neither a pad nor an end token, a weight is not finite, or an adapter is loaded with `lora` set.
    """
    with seeded_scope(seed), quiet():
        adapter = find_adapter(name, revision, tasks=(head.task.value, None))
        if adapter is not None:
            refuse_second(name, lora)
            loaded = _load_adapter(adapter, labels, dtype, trust_remote_code, head)
        elif name == TINY_ENCODER:
            loaded = _tiny_encoder(labels, seed, head)
            loaded.model.to(DTYPES[dtype])
        else:
            loaded = _load_base(name, labels, revision, dtype, trust_remote_code, head)
        set_padding(loaded.model, loaded.tokenizer)
        if lora is not None:
            loaded = replace(loaded, model=_with_lora(loaded, lora, name, revision, head))
        if gradient_checkpointing:
            checkpoint_gradients(name, loaded.model)
        require_finite_weights(name, loaded.model)
    return loaded


def refuse_second(name: str, lora: Lora | None) -> None:
    """Raises ModelError where an adapter is asked for on top of another."""
    if lora is not None:
        raise ModelError(
            f"model.name {name!r} is an adapter and model.lora asks for another on top. Set model.lora: null to go on "
            "training this one, or load the merged model."
        )


def load_trained_classifier(name: str) -> LoadedModel:
    """A sequence classifier with the classes that it was trained for, in evaluation mode.

    Raises ModelError where nothing usable is found.
    """
    with quiet():
        adapter = find_adapter(name, None, tasks=("SEQ_CLS", None))
        require_counts(name if adapter is None else adapter.base)
        try:
            config = AutoConfig.from_pretrained(name if adapter is None else adapter.base, trust_remote_code=False)
        except UNUSABLE as error:
            raise ModelError(f"The classifier {name!r} could not be loaded: {told(error)}") from error
    labels = labels_of(config) if adapter is None else adapter.names or labels_of(config, adapter.classes)
    loaded = load_classifier(name, labels)
    if loaded.initialised:
        raise ModelError(f"{name!r} has no trained classification head: weights {loaded.initialised[0]} ... are new.")
    loaded.model.eval()
    return loaded


def _load_base(
    name: str, labels: Sequence[str], revision: str | None, dtype: str, trust_remote_code: bool, head: Head
) -> LoadedModel:
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with usable(name, "the tokenizer of a text model", revision=revision):
        config = AutoConfig.from_pretrained(name, **options)
        require_classifier(name, config, head)
        check_labels(name, config, labels, head.ending)
        notes = read_as_classes(name, config, head.ending)
        require_tokenizer(name)
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        require_words(name, tokenizer)
        model, new, more = _classifying(name, config, labels, dtype, options, head)
    return LoadedModel(model, tokenizer, new, (*notes, *more))


def _classifying(
    name: str,
    config: PretrainedConfig,
    labels: Sequence[str],
    dtype: str,
    options: dict[str, Any],
    head: Head,
    another_head: bool = False,
) -> tuple[nn.Module, tuple[str, ...], tuple[str, ...]]:
    """A classifier over `labels`, the names of its weights that the checkpoint did not fill, and notes.

    another_head: whether the checkpoint's head may be for other classes.
    """
    require_safetensors(name, head.auto.__name__)
    name_classes(config, labels)
    return_logits(config)
    model, report = head.auto.from_pretrained(
        name,
        config=config,
        dtype=DTYPES[dtype],
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **options,
    )
    require_shapes(name, report, HEADS if another_head else ())
    notes = (*require_body(name, model, report["missing_keys"]), *left_out(name, model, report))
    return model, unfilled(report), notes


@contextmanager
def usable(name: str, beside: str, kind: str = "", revision: str | None = None) -> Iterator[None]:
    """Inside the block what transformers says of a model that cannot be loaded is said in the user's words, and none is
    built that is much larger than its weights.

    beside: what the folder must hold besides configuration and weights. kind: "as a ...", what it was to be loaded as.
    """
    require_folder(name)
    require_counts(name, revision)
    try:
        with bounded(name):
            yield
    except ModelError:
        raise
    except UNUSABLE as error:
        remedy = (
            f"Give a Hub id, or the path of a folder that holds config.json, the weights as safetensors and {beside}."
        )
        if "trust_remote_code" in str(error):
            remedy = "Set model.trust_remote_code: true where you have read that code and trust it."
        elif isinstance(error, SafetensorError):
            remedy = "A file of its weights is damaged or was not written to its end: download or save it again."
        raise ModelError(
            f"model.name {name!r} could not be loaded{kind and ' '}{kind}: {told(error)} {remedy}"
        ) from error


def checkpoint_gradients(name: str, model: nn.Module) -> None:
    """Recomputes activations in backward.

    To be called after the adapters are in: transformers and PEFT make the embeddings' output ask for a gradient, which
    only the reentrant kind of checkpointing needs and which would show in everything computed from it.
    """
    try:
        pretrained(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        pretrained(model).disable_input_require_grads()
    except ValueError as error:
        raise ModelError(
            f"model.gradient_checkpointing: true is not possible with model.name {name!r}: {error} Set it to false."
        ) from error


def _load_adapter(
    adapter: Adapter, labels: Sequence[str], dtype: str, trust_remote_code: bool, head: Head
) -> LoadedModel:
    if adapter.names is not None:
        check_names(adapter.name, adapter.names, labels)
    with adapter.naming():
        base = _base_of(adapter, labels, dtype, trust_remote_code, head)
    embeddings = fit_vocabulary(adapter, base.model, base.tokenizer)
    model, notes = attach(adapter, base.model, base.initialised), (*base.notes, *adapter.notes)
    return replace(base, model=model, initialised=(), notes=notes, embeddings=embeddings)


def _base_of(adapter: Adapter, labels: Sequence[str], dtype: str, trust_remote_code: bool, head: Head) -> LoadedModel:
    """An adapter's base model; its own head may be for other classes where the adapter brings one."""
    if adapter.base == TINY_ENCODER:
        # Only its head is new each time, whatever the seed.
        built = _tiny_encoder(labels, TINY_SEED, head)
        new = tuple(name for name in built.initialised if name.startswith(HEADS))
        return replace(built, model=built.model.to(DTYPES[dtype]), initialised=new)
    options: dict[str, Any] = {"revision": adapter.settings.revision, "trust_remote_code": trust_remote_code}
    with usable(adapter.base, "the tokenizer of a text model", revision=adapter.settings.revision):
        config = AutoConfig.from_pretrained(adapter.base, **options)
        require_classifier(adapter.base, config, head)
        if adapter.classes is None or (adapter.names is None and config.num_labels == len(labels)):
            check_labels(adapter.base, config, labels, head.ending)
        read = read_as_classes(adapter.base, config, head.ending)
        notes = read if adapter.classes is None else ()
        tokenizer = adapter_tokenizer(adapter, config, trust_remote_code)
        model, new, more = _classifying(adapter.base, config, labels, dtype, options, head, another_head=True)
    return LoadedModel(model, tokenizer, new, (*notes, *more))


def adapter_tokenizer(adapter: Adapter, config: PretrainedConfig, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """An adapter's own tokenizer, or that of its base model, whose configuration is `config`."""
    name, revision = adapter.tokenizer_source
    require_tokenizer(name)
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        name, config=config, revision=revision, trust_remote_code=trust_remote_code
    )
    require_words(name, found)
    return found


def require_words(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ModelError where the tokenizer knows special tokens alone, or has a length that is no number.

    Where the files of the vocabulary are missing, transformers makes such a one and says nothing.
    """
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float) or isinstance(longest, bool) or not longest > 0:
        raise ModelError(
            f"model.name {name!r}: its tokenizer_config.json sets model_max_length: {longest!r:.80}, which is no count "
            f"of tokens. {TOKENIZER_REMEDY}"
        )
    special = {*tokenizer.all_special_tokens, *(token.content for token in tokenizer.added_tokens_decoder.values())}
    if special.issuperset(tokenizer.get_vocab()):
        raise ModelError(
            f"model.name {name!r}: its tokenizer ({type(tokenizer).__name__}) has a vocabulary of {len(tokenizer)} "
            "special tokens and no word, so that every text would be unknown: its files are missing. Save the model's "
            "tokenizer beside it (tokenizer.save_pretrained), or download the model again."
        )


def _tiny_encoder(labels: Sequence[str], seed: int, head: Head) -> LoadedModel:
    """A BERT of about 0.1 M parameters with random weights and the built-in reviews' own tokenizer.

    Only the head is drawn from `seed`: the rest is the same at every call, as a downloaded model's is, so that an
    adapter finds the base it was trained on.
    """
    tokenizer = reviews_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        problem_type=SINGLE_LABEL,
    )
    name_classes(config, labels)
    config.name_or_path = TINY_ENCODER
    with seeded_scope(TINY_SEED):
        model = head.tiny(config)
    with seeded_scope(seed):
        torch.nn.init.normal_(model.classifier.weight, std=config.initializer_range)
    return LoadedModel(model, tokenizer, tuple(sorted(name for name, _ in model.named_parameters())))


def set_padding(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Decoders ship without a pad token: their end token serves, as attention masks hide it.

    The configuration is told of it, for a decoder's head looks for the last token before the padding; but a model whose
    position embeddings have a padding of their own, as RoBERTa's, counts by it from the moment that it is built.
    """
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError(
                f"The tokenizer of {tokenizer.name_or_path!r} has neither a pad nor an end token, so rows of different "
                "length cannot be batched. Add one with tokenizer.add_special_tokens({'pad_token': ...}), resize the "
                "model's embeddings, and save both."
            )
        tokenizer.pad_token = tokenizer.eos_token
    known = pretrained(model).get_input_embeddings()
    if isinstance(known, nn.Embedding) and tokenizer.pad_token_id >= known.num_embeddings:
        raise ModelError(
            f"The pad token of {tokenizer.name_or_path!r} has id {tokenizer.pad_token_id} and the model knows only "
            f"{known.num_embeddings} tokens. Call model.resize_token_embeddings(len(tokenizer)) and save the model."
        )
    positions = (module for module in model.modules() if isinstance(module, nn.Embedding) and module is not known)
    config = pretrained(model).config
    # Configurations of several parts need not have the key at all.
    if config.to_dict().get("pad_token_id") is None or all(module.padding_idx is None for module in positions):
        config.pad_token_id = tokenizer.pad_token_id


def _with_lora(loaded: LoadedModel, lora: Lora, name: str, revision: str | None, head: Head) -> PeftModel:
    return new_adapter(
        loaded.model,
        lora,
        task=head.task,
        # PEFT trains whole every module whose name ends with a head's, so that DistilBERT's pre_classifier is one too
        # and cannot carry an adapter as well.
        exclude=rf".*({'|'.join(HEADS)})",
        whole=None if name == TINY_ENCODER else _new_modules(loaded.initialised),
        revision=revision,
    )


def _new_modules(initialised: Sequence[str]) -> list[str] | None:
    """The modules, besides the head that PEFT always saves, whose weights the checkpoint lacked.

    They must travel with the adapter: nobody could draw the same random weights again.
    """
    modules = dict.fromkeys(name.rpartition(".")[0] for name in initialised)
    return [module for module in modules if not set(module.split(".")) & set(HEADS)] or None
