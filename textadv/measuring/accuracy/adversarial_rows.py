"""Adversarial rows kept for others: one file per attack, of the rows as the attack left them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from textadv.attacks import Attack, ThreatModel
from textadv.data import Rows
from textadv.measuring.accuracy.attacked_rows import Hit
from textadv.measuring.ledger import Row
from textadv.values.batch import Batch, padded
from textadv.values.decisions import Label, listed
from textadv.values.errors import WriteError
from textadv.values.host.writing import require_writable, write_tensors

BY_POSITION = ("input_ids", "attention_mask", "token_type_ids", "delta")


def rows_of(batch: Batch) -> list[Row]:
    """What is kept of each row of a perturbed batch, without padding.

    Of images `pixel_values`, (channels, height, width); of others `delta` and the tokens, (S, D) and (S,) say.
    """
    kept = batch.perturbation
    assert kept is not None
    if kept.space.is_picture:
        pixels = batch.inputs["pixel_values"]
        moved = (pixels + kept.delta.detach().to(pixels.dtype)).cpu()
        return [{"pixel_values": image.clone()} for image in moved]
    delta, tokens = kept.delta.detach().cpu(), {name: value.cpu() for name, value in batch.inputs.items()}
    found = []
    for row in range(len(batch)):
        own: Row = {"delta": delta[row].clone()}
        if kept.space.per_position and "attention_mask" in tokens:
            there = tokens["attention_mask"][row].bool()
            own["delta"] = delta[row][..., there, :].clone()
            own |= {name: value[row][there].clone() for name, value in tokens.items() if name in BY_POSITION}
        found.append(own)
    return found


def files_of(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Where the rows of each attack go, in a folder that is made; attacks by the names that results call them.

    Raises ValueError where the folder cannot be written, or two names would share a file.
    """
    try:
        require_writable(folder)
    except WriteError as error:
        raise ValueError(f"keep_adversarial {folder}: {error}") from error
    files = {name: folder / f"{as_file(name)}.safetensors" for name in names}
    shared = [name for name, path in files.items() if list(files.values()).count(path) > 1]
    if shared:
        raise ValueError(f"Attacks named {', '.join(shared)} would share the file {files[shared[0]]}. Rename one.")
    return files


def as_file(name: str) -> str:
    """A name as that of a file or folder: letters, digits, dots and dashes."""
    return re.sub(r"[^\w.-]+", "_", name)


def write_rows(
    path: Path, kept: Mapping[int, Row], hits: Sequence[Hit], rows: Rows, attack: Attack, threat: ThreatModel
) -> None:
    """Writes the attacked rows of one attack as a safetensors file, in the order of `hits`.

    ids, labels, predictions (under attack): (N,) int64, the last two of rows of several labels (N, K) with -100 after a
    row's last. gauge: (N,) float32, norm over radius. Images: `pixel_values` (N, channels, height, width), adversarial.
    Other spaces: `delta`, (N, S, D) or (N, places, S, D), what the attack adds there, beside `input_ids` and
    `attention_mask` (N, S), padded on the right with zeros.
    The metadata name the attack and the threat model.
    """
    tensors = {
        "ids": torch.tensor([rows.ids[hit.position] for hit in hits], dtype=torch.int64),
        "labels": _classes([rows.labels[hit.position] for hit in hits]),
        "predictions": _classes([hit.prediction for hit in hits]),
        "gauge": torch.tensor([hit.gauge for hit in hits], dtype=torch.float32),
    }
    for name in kept[hits[0].position] if hits else ():
        tensors[name] = _stacked(name, [kept[hit.position][name] for hit in hits])
    write_tensors(path, tensors, {"attack": str(attack), "threat": str(threat)})


def _classes(labels: Sequence[Label]) -> Tensor:
    """(N,) int64; (N, K) of rows of several labels, IGNORED after a row's last."""
    if any(isinstance(label, tuple) for label in labels):
        return padded([listed(label) for label in labels])
    return torch.tensor(labels, dtype=torch.int64)


def _stacked(name: str, parts: Sequence[Tensor]) -> Tensor:
    """Rows as one tensor, those by position filled up on the right."""
    if name not in BY_POSITION:
        return torch.stack(list(parts))
    dim = -2 if name == "delta" else -1
    longest = max(part.shape[dim] for part in parts)
    behind = (0,) * (2 * (-dim - 1))
    return torch.stack(
        [torch.nn.functional.pad(part, (*behind, 0, longest - part.shape[dim])) for part in parts]
    ).contiguous()
