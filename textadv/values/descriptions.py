"""Descriptions of values and of models, that two of them share where they are the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor

from textadv.values.digests import digest, tensor_bytes, weights_hash

PASSING = {"training", "gradient_checkpointing", "name_or_path", "base_model_name_or_path", "hf_device_map"}
"""What a module holds and no result follows from: how it is run, and where it came from."""
OF_FILES = {"transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "use_cache", "name_or_path"}
"""What a configuration tells of its file and of how it is run: the number format is that of the weights themselves."""
ADAPTERS = "peft_config"
"""How an adapter was made: what it does stands in its layers."""
QUANTISED = "bitsandbytes"
"""Whose modules hold numbers that come and go with their passes, and beside their weights what makes numbers of these:
how they are quantised says the configuration."""
SETTINGS = "settings."
"""What the names of hashes of settings begin with."""
INITIAL = "initial"
"""What the names of hashes call the model that a run starts from."""


class UndescribedError(Exception):
    """An attack that holds something of which no description can be made that tells it from another."""


def described(value: object) -> str:
    """A text that two values share where they are the same: of attacks, threat models and what they are made of.

    Fields of metadata {"described": False} are left out: a foreign attack is known by the name it was given.

    Raises UndescribedError for functions made inside others, whose code a name does not tell, and for unknown objects.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous()
        return f"tensor{tuple(content.shape)}{content.dtype}{digest([tensor_bytes(content)])}"
    if isinstance(value, torch.nn.Module):
        return f"module{digest(_module_parts(value))}"
    if isinstance(value, tuple | list):
        return f"({', '.join(described(part) for part in value)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{described(key)}: {described(part)}' for key, part in value.items())}}}"
    kind = type(value)
    module = kind.__module__
    if is_dataclass(value) and not isinstance(value, type):
        parts = ((part.name, vars(value)[part.name]) for part in fields(value) if part.metadata.get("described", True))
        return f"{module}.{kind.__qualname__}({', '.join(f'{name}={described(p)}' for name, p in parts)})"
    if isinstance(value, FunctionType) and "<" not in value.__qualname__:
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, BuiltinFunctionType):
        name = value.__name__
        if vars(torch).get(name) is value:
            return f"torch.{name}"
    raise UndescribedError(f"{module}.{kind.__qualname__}")


def settings_hash(module: torch.nn.Module) -> str:
    """SHA-256 of what `weights_hash` leaves out: its modules, their plain settings and its configuration.

    Not of tensors: buffers that follow from settings differ in their last bits from machine to machine.
    """
    return digest(_structure(module, tensors=False))


def model_hashes(name: str, module: torch.nn.Module) -> dict[str, str]:
    """SHA-256 of the weights of a model, and of its settings, as results name them."""
    return {f"weights.{name}": weights_hash(module), f"{SETTINGS}{name}": settings_hash(module)}


def surrogate_hashes(surrogates: Mapping[str, torch.nn.Module]) -> dict[str, str]:
    """SHA-256 of the weights and settings of each model that attacks are transferred from."""
    found = [model_hashes(f"surrogate.{name}", model) for name, model in surrogates.items()]
    return {key: value for one in found for key, value in one.items()}


def _module_parts(module: torch.nn.Module) -> Iterable[bytes]:
    """What it is made of, with the settings of each part, its weights and all its buffers, also those not saved."""
    yield from _structure(module, tensors=True)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        yield from _tensor_parts(name, value)


def _tensor_parts(name: str, value: Tensor) -> Iterable[bytes]:
    """value: of any shape."""
    yield f"{name} {tuple(value.shape)} {value.dtype}".encode()
    yield tensor_bytes(value)


def _structure(module: torch.nn.Module, *, tensors: bool) -> Iterable[bytes]:
    """The kind and the settings of each of its parts. tensors: also those that are neither weights nor buffers."""
    for name, part in module.named_modules():
        kind = type(part)
        if not kind.__module__.startswith(QUANTISED):
            yield f"{name} {kind.__qualname__} {_settings(part, tensors)}".encode()
            continue
        yield f"{name} {kind.__qualname__}".encode()
        if tensors:
            for key, value in sorted(part.state_dict().items()):
                yield from _tensor_parts(f"{name}.{key}", value)


def _settings(part: torch.nn.Module, tensors: bool) -> list[tuple[str, str]]:
    """The plain values that a module holds, such as strides or LoRA's scalings, and what its configuration says."""
    found = []
    for name, value in sorted(vars(part).items()):
        if name.startswith("_") or name in PASSING or name == ADAPTERS:
            continue
        if isinstance(value, Tensor) and not tensors:
            continue
        if name == "config" and " at 0x" not in repr(value):
            found.append((name, _configuration(value)))
            continue
        try:
            found.append((name, described(value)))
        except UndescribedError:
            continue
    return found


def _configuration(config: Any) -> str:
    """What a configuration says of the model, and not of its files."""
    written = getattr(config, "to_json_string", None)
    if not callable(written):
        return repr(config)
    return f"{type(config).__qualname__} {json.dumps(_of_the_model(json.loads(written())), sort_keys=True)}"


def _of_the_model(told: Any) -> Any:
    if isinstance(told, list):
        return [_of_the_model(one) for one in told]
    if not isinstance(told, dict):
        return told
    return {name: _of_the_model(one) for name, one in told.items() if not name.startswith("_") and name not in OF_FILES}
