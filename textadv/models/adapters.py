"""PEFT adapters that were saved here or elsewhere: where they are, what they say, and which base model they need.

One reader for texts, chats and images; `adapting` puts what it finds on the base model. Everything that cannot be used
is told by the name of the adapter and of the file that says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig
from peft import __version__ as INSTALLED
from safetensors import safe_open
from torch import Tensor
from transformers import PretrainedConfig
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from textadv.models.sources import UNUSABLE, is_path, refuse_pickles, require_fetched, told
from textadv.values.errors import ModelError
from textadv.values.host.reading import json_of

MODEL_FILE = "config.json"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
BASE_KEY = "base_model_name_or_path"
BUILT_IN = "builtin:"
HEADS = ("classifier", "score")
PREFIX = "base_model.model."
TASKS = {
    "SEQ_CLS": "classifying texts",
    "TOKEN_CLS": "labelling words (task: tokens)",
    "CAUSAL_LM": "chat models (task: chat)",
    None: "images, or for no task in particular",
}


@dataclass(frozen=True)
class Adapter:
    """An adapter on this machine, and where its base model is.

    name: what it was asked for by. folder: holds its files. settings: adapter_config.json; `base_model_name_or_path` is
    what `base` is. base: a Hub id, a folder or a built-in model; settings.revision says which revision of it.
    own_tokenizer: whether its tokenizer comes with it. notes: what the report must say of it.
    """

    name: str
    folder: Path
    settings: PeftConfig
    base: str
    revision: str | None = None
    own_tokenizer: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Its tensors by the name that they have in the base model (PEFT's own parts of names are kept)."""
        try:
            with safe_open(self.folder / WEIGHTS_FILE, "pt") as file:
                return {key.removeprefix(PREFIX): tuple(file.get_slice(key).get_shape()) for key in sorted(file.keys())}
        except UNUSABLE as error:
            raise ModelError(
                f"model.name {self.name!r}: its {WEIGHTS_FILE} cannot be read: {told(error)} Download or save it again."
            ) from error

    def tensor(self, name: str) -> Tensor:
        """One of its tensors, of any shape, by the name in `shapes`."""
        with safe_open(self.folder / WEIGHTS_FILE, "pt") as file:
            found: Tensor = file.get_tensor(f"{PREFIX}{name}")
            return found

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """Its classes in their order, from a config.json that lies beside it; None without one: PEFT writes none."""
        if not (self.folder / MODEL_FILE).is_file():
            return None
        try:
            # The class of the configuration may need code that nobody asked to run.
            config = PretrainedConfig.from_dict(PretrainedConfig.get_config_dict(str(self.folder))[0])
        except UNUSABLE as error:
            raise ModelError(
                f"model.name {self.name!r}: the {MODEL_FILE} beside it cannot be read: {told(error)} Remove it, or "
                "save the adapter again."
            ) from error
        return tuple(str(name) for _, name in sorted((config.id2label or {}).items()))

    @property
    def classes(self) -> int | None:
        """How many classes its own head has; None where it brings none."""
        ends = tuple(f".{name}.weight" for name in (*HEADS, "classifier.out_proj"))
        return next((shape[0] for key, shape in self.shapes.items() if f".{key}".endswith(ends)), None)

    @property
    def tokenizer_source(self) -> tuple[str, str | None]:
        """Where its tokenizer is, with the revision: beside it, or else with its base model."""
        return (self.name, self.revision) if self.own_tokenizer else (self.base, self.settings.revision)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Inside the block what is wrong with the base model is said of the adapter that names it."""
        try:
            yield
        except ModelError as error:
            if str(error).startswith(f"model.name {self.name!r}"):
                raise
            raise ModelError(
                f"model.name {self.name!r} is an adapter, and its {CONFIG_FILE} names the base model {self.base!r} "
                f"({BASE_KEY}): {error}"
            ) from error


def find_adapter(name: str, revision: str | None, *, tasks: Collection[str | None]) -> Adapter | None:
    """The adapter that `name` is: a folder with adapter_config.json, or a Hub id of such a repository; else None.

    revision: of the adapter on the Hub. tasks: the kinds of PEFT's `task_type` that can be used.

    Raises ModelError where it cannot be used: another task, a method that changes the model's inputs, weights in a
    pickle, a setting that the installed PEFT does not know, no base model to be found, or an adapter as base model.
    """
    folder = Path(name)
    if folder.is_dir():
        _require_one(folder)
    elif name.startswith(BUILT_IN) or is_path(name):
        return None
    try:
        path = find_adapter_config_file(name, revision=revision)
    except UNUSABLE:
        return None
    if path is None:
        return None
    settings, notes = _settings(name, Path(path))
    _require_usable(name, settings, tasks)
    if not folder.is_dir():
        folder = _downloaded(name, revision)
    _require_weights(name, folder)
    base = _base(name, folder, settings)
    settings.base_model_name_or_path = base
    return Adapter(name, folder, settings, base, revision, _has_tokenizer(name, revision), notes)


def _require_one(folder: Path) -> None:
    """Raises ModelError where a folder is no model and holds adapters in folders of their own."""
    inside = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}"))
    if inside and not (folder / CONFIG_FILE).is_file() and not (folder / MODEL_FILE).is_file():
        raise ModelError(
            f"model.name {str(folder)!r} holds adapters in folders of their own: {', '.join(inside)}. Name one of "
            f"them, such as {folder / inside[0]}."
        )


def _settings(name: str, path: Path) -> tuple[PeftConfig, tuple[str, ...]]:
    """adapter_config.json as PEFT reads it, and notes.

    What the installed PEFT does not know is left out where no newer one wrote it, as PEFT does, for other tools write
    keys of their own; what a newer one wrote is refused.
    """
    written = _written(name, path)
    known = PEFT_TYPE_TO_CONFIG_MAPPING[written["peft_type"]]
    written.pop("runtime_config", None)
    strange = {key: written.pop(key) for key in set(written) - {field.name for field in fields(known)}}
    used = sorted(key for key, value in strange.items() if value)
    if used and _newer(written.get("peft_version")):
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} sets {used[0]}: {strange[used[0]]!r}, which the installed PEFT "
            f"({INSTALLED}) does not know, so that the adapter would do something else. It was written by PEFT "
            f"{written['peft_version']}: install that."
        )
    notes = (
        f"model: PEFT knows nothing of {', '.join(used)} in {CONFIG_FILE} of {name}, which is left out as PEFT does.",
    )
    _require_numbers(name, written)
    try:
        return known(**written), notes if used else ()
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} cannot be used: {told(error)} Correct it, or save the adapter "
            "again with PEFT's save_pretrained."
        ) from error


def _written(name: str, path: Path) -> dict[str, Any]:
    """adapter_config.json as it stands; ModelError where it is none of PEFT's."""
    try:
        written = json_of(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} is no JSON: {told(error)} Save the adapter again."
        ) from error
    kind = written.get("peft_type") if isinstance(written, dict) else None
    if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        got = "no peft_type" if kind is None else f"peft_type: {kind!r}"
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} says {got}, and the installed PEFT ({INSTALLED}) needs one it "
            "knows, such as LORA. Save the adapter again with PEFT's save_pretrained, or install a newer peft."
        )
    return dict(written)


def _newer(version: object) -> bool:
    """Whether a newer PEFT than the installed one says that it wrote a configuration; PEFT says so since 0.18."""
    try:
        return Version(str(version).partition("@")[0]) > Version(INSTALLED)
    except InvalidVersion:
        return False


def _require_numbers(name: str, written: Mapping[str, Any]) -> None:
    """PEFT computes with these whatever they are."""
    for key in ("r", "lora_alpha", "lora_dropout"):
        if not isinstance(written.get(key) or 0, int | float):
            raise ModelError(
                f"model.name {name!r}: its {CONFIG_FILE} sets {key}: {written[key]!r}, which is no number. Correct it."
            )


def _require_usable(name: str, settings: PeftConfig, tasks: Collection[str | None]) -> None:
    kind = str(settings.peft_type).rpartition(".")[2]
    if settings.is_prompt_learning or settings.is_adaption_prompt:
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} says peft_type: {kind}, which puts vectors of its own before "
            "every input, and what an attack may touch is counted without them. Use an adapter that changes weights, "
            "such as LORA or IA3."
        )
    if kind in ("XLORA", "POLY"):
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} says peft_type: {kind}, a mixture of adapters, which is not "
            "supported. Use one of them, or merge them into the base model."
        )
    task = None if settings.task_type is None else str(settings.task_type).rpartition(".")[2]
    if task not in tasks:
        wanted = " or ".join("none" if found is None else str(found) for found in tasks)
        purpose = f", for {TASKS[task]}" if task in TASKS else ""
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} says task_type: {'none' if task is None else task}{purpose}, and "
            f"this run needs {wanted}. Use an adapter that was trained for this task."
        )


def _downloaded(name: str, revision: str | None) -> Path:
    """The folder of the Hub's cache that an adapter's files are in."""
    try:
        path = cached_file(name, WEIGHTS_FILE, revision=revision)
    except UNUSABLE as error:
        raise ModelError(
            f"model.name {name!r} holds {CONFIG_FILE} and no {WEIGHTS_FILE} could be had: {told(error)}"
        ) from error
    return Path(str(path)).parent


def _require_weights(name: str, folder: Path) -> None:
    if (folder / WEIGHTS_FILE).is_file():
        require_fetched(name, folder / WEIGHTS_FILE)
        return
    whole = next(folder.glob("model*.safetensors"), None)
    if whole is None:
        refuse_pickles(name, folder, WEIGHTS_FILE)
    left = " Download or save the adapter again."
    if whole is not None:
        left = f" If {whole.name} is the merged model, remove {CONFIG_FILE}."
    raise ModelError(f"model.name {name!r} holds {CONFIG_FILE} and no {WEIGHTS_FILE}.{left}")


def _base(name: str, folder: Path, settings: PeftConfig) -> str:
    """What the adapter's base model is loaded by: as it is written, or the folder that a relative path leads to.

    A relative path is looked for where the process runs, as PEFT does, and beside the adapter and its parents.
    """
    written = settings.base_model_name_or_path
    remedy = f"Write the base model's folder or Hub id into {CONFIG_FILE}, as {BASE_KEY}."
    if not written:
        raise ModelError(f"model.name {name!r}: its {CONFIG_FILE} names no base model. {remedy}")
    if written.startswith(BUILT_IN):
        return written
    path = Path(written).expanduser()
    places = (Path.cwd() / path, *(place / path for place in (folder.absolute(), *folder.absolute().parents)))
    models = (MODEL_FILE, CONFIG_FILE)
    distinct = {place.resolve() for place in places if any((place / file).is_file() for file in models)}
    if len(distinct) > 1:
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} names the base model {written!r}, which could be "
            f"{' or '.join(map(str, sorted(distinct)))}. {remedy}"
        )
    if not distinct:
        if not is_path(written):
            return written
        looked = "" if path.is_absolute() else f" (looked in {Path.cwd()}, in {folder.absolute()} and in its parents)"
        raise ModelError(
            f"model.name {name!r} is an adapter whose {CONFIG_FILE} names its base model by a path, and there is no "
            f"folder {written} with a {MODEL_FILE}{looked}. {remedy}"
        )
    (base,) = distinct
    if (base / CONFIG_FILE).is_file() and not any(base.glob("model*.safetensors")):
        raise ModelError(
            f"model.name {name!r}: its {CONFIG_FILE} names {written!r}, which is an adapter itself. Merge that one "
            f"into its base model (PeftModel.merge_and_unload) and save it whole. {remedy}"
        )
    return written if Path(written).is_dir() else str(base)


def _has_tokenizer(name: str, revision: str | None) -> bool:
    try:
        found = cached_file(
            name,
            "tokenizer_config.json",
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except UNUSABLE:
        return False
    return found is not None
