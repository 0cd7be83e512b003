"""The two values that travel through every layer: a batch of rows and the perturbation it carries.

Shape letters, here and everywhere: B batch, S positions, D hidden, V vocabulary, C classes, K candidates or places of
decisions, N decisions or rows of no batch, T tokens of an answer, G of its opening, P positions of a prefix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType

import torch
from torch import Tensor

from textadv.values.kinds import require_kind, wrong_kind
from textadv.values.spaces import Space
from textadv.values.texts import Windows, Written, joined

IGNORED = -100
"""Stands in `targets` and `answers` where there is no token, and in `labels` (B, K) where there is none."""

NO_ANSWERS: Mapping[str, Tensor] = MappingProxyType({})


class Role(IntEnum):
    """What a row is for in the loss."""

    CLEAN = 0
    ADVERSARIAL = 1
    UTILITY = 2
    BORDERLINE = 3


@dataclass(frozen=True)
class Perturbation:
    """What the adversary adds, and where.

    delta: of the shape of the tensor that `space` names: (B, S, D) for tokens, (B, channels, height, width) for pixels.
    """

    space: Space
    delta: Tensor


@dataclass(frozen=True)
class Batch:
    """Rows ready for a model, frozen.

    inputs: what the model's forward takes, each tensor (B, ...); token tensors are (B, S).
    labels: (B,) int64 class ids; zeros for chats. Where a row has several, one for each word say: (B, K), at the places
        of the logits (B, K, C), IGNORED where there is none.
    editable: positions an adversary may touch, bool: (B, S) for tokens (never padding or special tokens),
        (B, 1, height, width) for images.
    ids: (B,) int64, unique per row of a data set; random starts are drawn from them.
    role: (B,) int64, values of `Role`.
    perturbation: what an attack found, or None.
    targets: chats only, (B, S) int64: the answer's tokens where they count in the loss, IGNORED elsewhere.
    answers: chats only, name -> (B, T) int64: what a row may be answered with, IGNORED after its end.
    openings: chats only, name -> (B, G) int64: what the chat template writes between the prompt and the answer of that
        name, IGNORED after its end. Where a name is missing it writes nothing.
    prompt_lengths: chats only, (B,) int64: tokens up to where the assistant starts. Chats are padded on the right.
    prefix: keys and values of each layer, (B, heads, P, D / heads), of the first P positions, where they are known; an
        attack puts them there for its own passes.
    written: the texts that the rows were made from, where these are known; None for images and chats.
    windows: how rows of more positions than one pass takes are read; None: every row is read in one pass.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    editable: Tensor
    ids: Tensor
    role: Tensor
    perturbation: Perturbation | None = None
    targets: Tensor | None = None
    answers: Mapping[str, Tensor] = field(default_factory=lambda: NO_ANSWERS)
    openings: Mapping[str, Tensor] = field(default_factory=lambda: NO_ANSWERS)
    prompt_lengths: Tensor | None = None
    prefix: tuple[tuple[Tensor, Tensor], ...] = ()
    written: Written | None = None
    windows: Windows | None = None

    def __post_init__(self) -> None:
        rows = len(self.labels)
        sizes = {name: len(value) for name, value in self.inputs.items()}
        sizes |= {f"answers.{name}": len(value) for name, value in self.answers.items()}
        sizes |= {f"openings.{name}": len(value) for name, value in self.openings.items()}
        sizes |= {"editable": len(self.editable), "ids": len(self.ids), "role": len(self.role)}
        for name in ("targets", "prompt_lengths", "written"):
            value = getattr(self, name)
            sizes |= {} if value is None else {name: len(value)}
        if self.perturbation is not None:
            sizes["perturbation.delta"] = len(self.perturbation.delta)
        wrong = {name: size for name, size in sizes.items() if size != rows}
        if wrong:
            raise ValueError(f"A batch of {rows} labels needs {rows} rows in every field, got {wrong}.")
        if self.editable.dtype != torch.bool:
            raise TypeError(
                f"editable must be a bool mask, True where the adversary may act, got {self.editable.dtype}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Every tensor changed alike."""
        kept = self.perturbation
        return replace(
            self,
            inputs={name: change(value) for name, value in self.inputs.items()},
            labels=change(self.labels),
            editable=change(self.editable),
            ids=change(self.ids),
            role=change(self.role),
            perturbation=None if kept is None else replace(kept, delta=change(kept.delta)),
            targets=None if self.targets is None else change(self.targets),
            answers={name: change(value) for name, value in self.answers.items()},
            openings={name: change(value) for name, value in self.openings.items()},
            prompt_lengths=None if self.prompt_lengths is None else change(self.prompt_lengths),
            prefix=tuple((change(keys), change(values)) for keys, values in self.prefix),
            written=None if self.written is None else self.written.mapped(change),
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same rows on another device."""
        return self._mapped(lambda tensor: tensor.to(device))

    def rows(self, index: Tensor) -> Batch:
        """The rows that `index` (int64 positions or a (B,) bool mask) names, perturbation included."""
        return self._mapped(lambda tensor: tensor[index])

    def perturbed(self, space: Space, delta: Tensor) -> Batch:
        """These rows carrying `delta` (B, ...) in `space`, in place of any earlier perturbation."""
        return replace(self, perturbation=Perturbation(space, delta))

    def carrying(self, perturbation: Perturbation) -> Batch:
        """These rows with a perturbation found on the same prompts followed by another answer."""
        if perturbation.space.per_position:
            delta = _fit_positions(perturbation.delta, self.editable.shape[-1])
            perturbation = replace(perturbation, delta=delta)
        return replace(self, perturbation=perturbation)

    def clean(self) -> Batch:
        """These rows without a perturbation."""
        return replace(self, perturbation=None)

    def with_role(self, role: Role) -> Batch:
        """These rows, each with `role`."""
        return replace(self, role=torch.full_like(self.role, int(role)))

    @property
    def is_chat(self) -> bool:
        """Whether these rows are a prompt and an answer, whose decisions are the answer's tokens."""
        return self.prompt_lengths is not None or self.targets is not None

    @property
    def one_each(self) -> bool:
        """Whether every row is one decision."""
        return not self.is_chat and self.labels.shape == self.ids.shape

    @property
    def decided(self) -> Tensor:
        """What each decision should be, at the places of the logits: (B,) for classes, (B, K) for several to a row.

        IGNORED where a row has none. Raises ValueError for chats without an answer.
        """
        return self.kept_targets if self.is_chat else self.labels

    @property
    def unlabelled(self) -> Tensor:
        """(B,) bool, where a row has no label."""
        return (self.labels < 0).reshape(len(self), math.prod(self.labels.shape[1:])).all(dim=1)

    @property
    def target_columns(self) -> Tensor:
        """The positions (K,) at which any row of a batch of chats has a target; position 0 never has one."""
        if self.targets is None:
            raise ValueError("These rows have no targets: give chats an answer with answering(name).")
        return (self.targets != IGNORED).any(dim=0).nonzero().squeeze(1)

    @property
    def kept_targets(self) -> Tensor:
        """The targets at those positions, (B, K), IGNORED where a row has none."""
        columns = self.target_columns
        assert self.targets is not None
        return self.targets[:, columns]

    def opening(self, answer: str) -> Tensor:
        """The template's tokens between each prompt and the answer of that name, (B, G), IGNORED after their end."""
        return self.openings.get(answer, self.ids.new_empty((len(self), 0)))

    def answering(self, answer: str | Tensor, *, given: Tensor | None = None) -> Batch:
        """The same prompts followed by another answer, whose tokens become the targets.

        answer: a key of `answers`, or tokens (B, T), IGNORED after each row's end.
        given: (B, G) tokens, IGNORED after each row's end, that stand between prompt and answer as if the assistant had
            said them already: part of the input, never a target. By default the opening of the answer named.

        Padded on the right to the longest row. What is editable, and a perturbation of tokens, ends with the prompt.
        Raises KeyError where there is no such answer and ValueError where these rows are no chats.
        """
        if self.prompt_lengths is None:
            raise ValueError("Only chats can be answered, got rows without prompt_lengths.")
        tokens = self.answers[answer] if isinstance(answer, str) else answer
        starts = self.prompt_lengths
        if given is None:
            given = self.opening(answer) if isinstance(answer, str) else tokens[:, :0]
        answered_from = starts + (given != IGNORED).sum(dim=1)
        ends = answered_from + (tokens != IGNORED).sum(dim=1)
        width = int(ends.max())
        ids = self.inputs["input_ids"]
        place = torch.arange(width, device=ids.device)
        in_prompt = place < starts.unsqueeze(1)
        composed = _fit(ids, width).masked_fill(~in_prompt, 0)
        targets = torch.full_like(composed, IGNORED)
        _write(composed, given, starts)
        _write(composed, tokens, answered_from)
        _write(targets, tokens, answered_from)
        return self._recomposed(composed, place < ends.unsqueeze(1), in_prompt, targets)

    def prompts(self) -> Batch:
        """The prompts alone, up to where the assistant starts; no targets."""
        lengths = self.prompt_lengths
        if lengths is None:
            raise ValueError("Only chats have prompts, got rows without prompt_lengths.")
        alone = self.answering(self.inputs["input_ids"].new_full((len(self), 0), IGNORED))
        return replace(alone, targets=None)

    def _recomposed(self, ids: Tensor, attended: Tensor, in_prompt: Tensor, targets: Tensor) -> Batch:
        width = ids.shape[1]
        kept = self.perturbation
        if kept is not None and kept.space.per_position:
            inside = in_prompt.reshape(len(self), *[1] * (kept.delta.dim() - 3), width, 1)
            kept = replace(kept, delta=_fit_positions(kept.delta, width).masked_fill(~inside, 0))
        return replace(
            self,
            prefix=(),
            inputs={"input_ids": ids, "attention_mask": attended.to(ids.dtype)},
            editable=_fit(self.editable, width) & in_prompt,
            perturbation=kept,
            targets=targets,
        )


def require_batch(batch: object, arrays: bool = False) -> Batch:
    """The batch itself; TypeError where it is something else. arrays: whether images in an array would do as well."""
    if arrays and isinstance(batch, list | tuple):
        raise wrong_kind("batch", batch, "a Batch", "Images go into one array: numpy.stack(images).")
    require_kind(
        "batch",
        batch,
        Batch,
        "a Batch",
        "Take one from rows: rows.batch(positions), where rows are encode(...) of texts or ImageRows(images, labels).",
    )
    assert isinstance(batch, Batch)
    return batch


def per_row(values: Tensor, tensor: Tensor) -> Tensor:
    """values: (B,), one for each row. Returns (B, 1, ...), which broadcasts over a tensor (B, ...)."""
    return values.reshape(-1, *[1] * (tensor.dim() - 1))


def _fit(tensor: Tensor, width: int, fill: int = 0) -> Tensor:
    """The last dimension cut, or filled up, to `width`."""
    return torch.nn.functional.pad(tensor, (0, width - tensor.shape[-1]), value=fill)


def _fit_positions(delta: Tensor, width: int) -> Tensor:
    """A delta (..., S, D) cut, or filled up with zeros, to `width` positions."""
    return _fit(delta.transpose(-1, -2), width).transpose(-1, -2)


def _write(into: Tensor, tokens: Tensor, starts: Tensor) -> None:
    """Writes each row's tokens (B, T), IGNORED after the row's end, into `into` (B, S) from `starts` (B,) on."""
    row, column = (tokens != IGNORED).nonzero(as_tuple=True)
    into[row, starts[row] + column] = tokens[row, column]


def following(first: Tensor, second: Tensor) -> Tensor:
    """Each row's tokens of `second` after its tokens of `first`, both ragged as in `answers`.

    first: (B, T1). second: (B, T2). The result: (B, T1 + T2).
    """
    joined = first.new_full((len(first), first.shape[1] + second.shape[1]), IGNORED)
    lengths = (first != IGNORED).sum(dim=1)
    _write(joined, first, torch.zeros_like(lengths))
    _write(joined, second, lengths)
    return joined


def padded(rows: Sequence[Sequence[int]], fill: int = IGNORED) -> Tensor:
    """Ragged token rows as one int64 tensor (B, T), filled up on the right."""
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.int64).reshape(
        len(rows), width
    )


def concatenate(batches: Sequence[Batch]) -> Batch:
    """One batch of all rows, in order; chats of different length are filled up on the right, texts where theirs are.

    Raises ValueError where some batches carry a perturbation, targets, a prompt or texts and others do not, or where
    the perturbations are not all in one space.
    """
    for name in ("targets", "prompt_lengths", "written"):
        if len({getattr(batch, name) is None for batch in batches}) > 1:
            raise ValueError(f"Batches can be joined where all have {name} or none does.")
    if batches[0].prompt_lengths is not None:
        batches = _of_one_width(batches)
    written = [batch.written for batch in batches if batch.written is not None]
    if written:
        positions = max(batch.editable.shape[1] for batch in batches)
        batches = [_filled(batch, own, positions) for batch, own in zip(batches, written, strict=True)]
    first = batches[0]
    spaces = {None if batch.perturbation is None else batch.perturbation.space for batch in batches}
    if len(spaces) > 1:
        raise ValueError(
            "Batches can be joined where all carry a perturbation of one space or none does, got "
            f"{', '.join(sorted(str(space or 'none') for space in spaces))}."
        )
    perturbation = None
    if first.perturbation is not None:
        deltas = [b.perturbation.delta for b in batches if b.perturbation is not None]
        perturbation = Perturbation(first.perturbation.space, torch.cat(deltas))
    return Batch(
        inputs={name: torch.cat([b.inputs[name] for b in batches]) for name in first.inputs},
        labels=torch.cat([b.labels for b in batches]),
        editable=torch.cat([b.editable for b in batches]),
        ids=torch.cat([b.ids for b in batches]),
        role=torch.cat([b.role for b in batches]),
        perturbation=perturbation,
        targets=_concatenated([b.targets for b in batches]),
        answers={name: torch.cat([b.answers[name] for b in batches]) for name in first.answers},
        openings={name: torch.cat([b.openings[name] for b in batches]) for name in first.openings},
        prompt_lengths=_concatenated([b.prompt_lengths for b in batches]),
        written=joined(written) if written else None,
        windows=first.windows,
    )


def _concatenated(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known else None


def _of_one_width(batches: Sequence[Batch]) -> list[Batch]:
    """Chats filled up on the right: all rows to one number of positions, each answer to one number of tokens."""
    positions = max(batch.editable.shape[1] for batch in batches)
    answers = _of_one_length([batch.answers for batch in batches])
    openings = _of_one_length([batch.openings for batch in batches])
    return [
        _widened(replace(batch, answers=own, openings=before), positions)
        for batch, own, before in zip(batches, answers, openings, strict=True)
    ]


def _of_one_length(named: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Ragged tokens by name, those of each name filled up to one number of columns."""
    widths = {name: max(each[name].shape[1] for each in named) for name in named[0]}
    return [{name: _fit(each[name], width, IGNORED) for name, width in widths.items()} for each in named]


def _widened(batch: Batch, positions: int) -> Batch:
    kept = batch.perturbation
    if kept is not None and kept.space.per_position:
        kept = replace(kept, delta=_fit_positions(kept.delta, positions))
    return replace(
        batch,
        inputs={name: _fit(value, positions) for name, value in batch.inputs.items()},
        editable=_fit(batch.editable, positions),
        perturbation=kept,
        targets=None if batch.targets is None else _fit(batch.targets, positions, IGNORED),
    )


def _filled(batch: Batch, written: Written, positions: int) -> Batch:
    """Rows of texts filled up to so many positions, as their tokenizer does."""
    if batch.editable.shape[1] == positions:
        return batch
    kept, windows = batch.perturbation, batch.windows
    if kept is not None and kept.space.per_position:
        kept = replace(
            kept, delta=written.filled(kept.delta.transpose(-1, -2), positions, windows=windows).transpose(-1, -2)
        )
    return replace(
        batch,
        inputs={
            name: written.filled(value, positions, written.fill[name], windows) for name, value in batch.inputs.items()
        },
        editable=written.filled(batch.editable, positions, windows=windows),
        perturbation=kept,
    )
