"""One behaviour with slots for a suffix: the loss of many suffixes at once, and its slope at each slot's tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from textadv.attacks.prompts.norms import scaled_at_norms
from textadv.attacks.prompts.rewritten import AskedFor, Passes, Rewritten
from textadv.attacks.prompts.suffix_losses import claimed
from textadv.attacks.prompts.victim import ChatVictim, Slotted, failed
from textadv.models.places import bare, embedding_table
from textadv.models.prefix import with_prefix
from textadv.models.running import evaluating, forward, prefix_length
from textadv.values.batch import Batch, Perturbation
from textadv.values.errors import DataError
from textadv.values.losses import Loss
from textadv.values.processes import beside_others, from_shares
from textadv.values.spaces import Embeddings


def _repeated(batch: Batch, rows: int, shared: int) -> Batch:
    """One row as many, with the keys and values of so many positions."""
    many = replace(batch, prefix=()).rows(torch.zeros(rows, dtype=torch.int64, device=batch.device))
    prefix = tuple(
        (keys[:, :, :shared].expand(rows, -1, -1, -1), values[:, :, :shared].expand(rows, -1, -1, -1))
        for keys, values in batch.prefix
    )
    return replace(many, prefix=prefix if shared else ())


@dataclass(frozen=True, eq=False)
class SuffixRow:
    """A behaviour whose suffix is searched. loss: what is lowered. norm_scale: see `scaled_at_norms`."""

    victim: ChatVictim
    asked: AskedFor
    slotted: Slotted
    loss: Loss
    norm_scale: float = 1.0
    passes: Passes = field(default_factory=Passes)

    @property
    def slots(self) -> slice:
        """Where in the prompt the suffix stands."""
        start = len(self.slotted.before)
        return slice(start, start + len(self.slotted.slots))

    @cached_property
    def _plain(self) -> Batch:
        """The row as one batch, its slots editable."""
        chat = self.slotted
        batch = self.victim.batch([[*chat.before, *chat.slots, *chat.after]], [chat.reply])
        editable = torch.zeros_like(batch.editable)
        editable[:, self.slots] = True
        return replace(batch, editable=editable)

    @cached_property
    def _known(self) -> Batch:
        """The same with the keys and values of what stands before the suffix, where the model can do with them."""
        return self._grown(self._plain, self.slots.start)

    def _grown(self, batch: Batch, length: int) -> Batch:
        """The batch with keys and values of its first positions."""
        editable = torch.zeros_like(batch.editable)
        editable[:, length] = True
        delta = torch.zeros((*editable.shape, embedding_table(bare(self.victim.model)).shape[1]), device=batch.device)
        known = prefix_length(batch)
        with evaluating(bare(self.victim.model)):
            grown = with_prefix(self.victim.model, replace(batch, editable=editable), Perturbation(Embeddings(), delta))
        if prefix_length(grown) > known:
            self._count(1, length - known)
        return replace(grown, editable=batch.editable)

    def _count(self, rows: int, tokens: int) -> None:
        self.passes.forwards += rows
        self.passes.forward_tokens += rows * tokens

    def _with(self, batch: Batch, row: Tensor) -> Batch:
        """The batch with these tokens (S,) in its slots."""
        ids = batch.inputs["input_ids"].clone()
        ids[:, self.slots] = row.to(ids.device)
        return replace(batch, inputs={**batch.inputs, "input_ids": ids})

    def many(self, rows: int, most: int | None = None) -> Batch:
        """The row as many, with what is known of it, and the tokens of the first suffix in the slots of each.

        most: so many positions of what is known at most; None: all.
        """
        known = prefix_length(self._known)
        return _repeated(self._known, rows, known if most is None else min(known, most))

    def with_slots(self, slots: Sequence[int]) -> SuffixRow:
        """The same behaviour with other slots, of any number, and what is known of what stands before them."""
        other = replace(self, slotted=replace(self.slotted, slots=tuple(slots)))
        vars(other)["_known"] = replace(other._plain, prefix=self._known.prefix)
        return other

    @cached_property
    def slot_vectors(self) -> Tensor:
        """The embeddings (slots, D) of the tokens of the first suffix, as the model receives them."""
        return self.victim.embedded(self.slotted.row)

    # ---- losses

    @torch.no_grad()
    def losses(self, rows: Tensor, near: Tensor | None = None, spread: bool = False) -> Tensor:
        """(K, 2) float32 on the CPU: of suffixes (K, S) the loss, and 1 where greedy decoding says the target at once.

        near: a suffix (S,) from which most differ late only: what they share with it is sent once. spread: whether
        processes share the suffixes out, each being given the same ones; passes are then counted as of one process.
        """
        current = rows[0] if near is None else near
        first = (rows != current).int().argmax(dim=1)
        first[(rows == current).all(dim=1)] = rows.shape[1] - 1
        order = first.argsort(stable=True)
        known = beside_others(partial(self._near, current, int(first.max()) if len(rows) > 1 else 0), spread)
        found = torch.empty(len(rows), 2)
        width = known.inputs["input_ids"].shape[1]

        def of(index: Tensor) -> Tensor:
            shared = min(prefix_length(known), self.slots.start + int(first[index].min()))
            return self._losses(_repeated(known, len(index), shared), rows[index], shared)

        length = max(width - prefix_length(known), 1)
        model, room = self.victim.model, self.victim.room
        with evaluating(bare(model)):
            if not spread:
                found[order] = room.apply(of, order, length, self.victim.device)
                return found
            with self._counted_by_all():
                found[order] = room.spread(of, order, length, self.victim.device, model)
        return found

    @contextmanager
    def _counted_by_all(self) -> Iterator[None]:
        """Inside the block processes count what each sends; after it all have the sum, also where one failed."""
        before = self.passes.forwards, self.passes.forward_tokens
        try:
            yield
        finally:
            own = self.passes.forwards - before[0], self.passes.forward_tokens - before[1]
            spent = from_shares([own], self.victim.model)
            self.passes.forwards = before[0] + sum(rows for rows, _ in spent)
            self.passes.forward_tokens = before[1] + sum(tokens for _, tokens in spent)

    def _near(self, row: Tensor, slots: int) -> Batch:
        """The suffix (S,) with what is known before it and, where that can be used, of so many slots of it."""
        if not prefix_length(self._known) or not slots:
            return self._known
        return self._grown(self._with(self._known, row), self.slots.start + slots)

    def _losses(self, batch: Batch, rows: Tensor, shared: int) -> Tensor:
        ids = batch.inputs["input_ids"].clone()
        ids[:, self.slots] = rows.to(ids.device)
        batch = replace(batch, inputs={**batch.inputs, "input_ids": ids})
        found = claimed(self.victim.model, batch, self.loss)
        self._count(len(rows), ids.shape[1] - shared)
        return found

    # ---- slopes

    def slope(self, row: Tensor) -> Tensor:
        """(S, N) float32: how the loss grows as a slot of the suffix (S,) moves towards a token.

        Taken with respect to a tensor of its own, with `autograd.grad`: no weight gets a gradient.
        """
        batch = self._with(self._known, row)
        width = self.victim.table.shape[1]
        delta = torch.zeros((*batch.editable.shape, width), device=batch.device, requires_grad=True)
        with evaluating(bare(self.victim.model)), scaled_at_norms(self.victim.model, self.norm_scale):
            logits = forward(bare(self.victim.model), batch.perturbed(Embeddings(), delta))
            self.count_forward(batch, 1)
            (found,) = torch.autograd.grad(self.loss(logits, batch).sum(), delta)
        self.count_backward(batch, 1)
        own = found[0, self.slots]
        own = own / own.norm().clamp_min(torch.finfo(own.dtype).tiny)
        return (own.to(self.victim.table.dtype) @ self.victim.table.T).float().cpu()

    def count_forward(self, batch: Batch, rows: int) -> None:
        """Counts one pass of so many rows."""
        self._count(rows, batch.inputs["input_ids"].shape[1] - prefix_length(batch))

    def count_backward(self, batch: Batch, rows: int) -> None:
        """Counts one pass back of so many rows."""
        self.passes.backwards += rows
        self.passes.backward_tokens += rows * (batch.inputs["input_ids"].shape[1] - prefix_length(batch))

    # ---- text

    def survives(self, rows: Tensor) -> Tensor:
        """(K,) bool, of suffixes (K, S): see `ChatVictim.survives`."""
        return self.victim.survives(self.slotted, rows)

    def ended(self, rows: Sequence[Tensor], path: Sequence[tuple[int, float]]) -> Rewritten:
        """The first of these suffixes (S,) that is the same when it is sent, with its loss as sent."""
        for row in rows:
            [text] = self.victim.texts(self.slotted, row.unsqueeze(0))
            sent = self.slotted.sent(text)
            wanted = (*self.slotted.before, *row.tolist(), *self.slotted.after)
            try:
                reply = self.victim.reply(sent, self.asked.target)
                if self.victim.encoded(sent) == wanted and reply == self.slotted.reply:
                    return self.victim.measured(self.asked, sent, self.passes, path)
            except DataError:
                continue
        return failed(self.asked, "no suffix that was found is the same tokens when it is sent as text", self.passes)
