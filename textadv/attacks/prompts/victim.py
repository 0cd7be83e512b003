"""The chat model that an attack in text asks: whole chats through its template, and its loss after many texts.

A text that an attack puts into the user's last turn has slots: the tokens that it has there in the whole chat. Only
tokens that come out the same when they are written as text, put through the template and read again survive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from textadv.attacks.prompts.fitting import Room
from textadv.attacks.prompts.rewritten import AskedFor, Passes, Rewritten, Status
from textadv.attacks.prompts.suffix_losses import claimed
from textadv.data.chat_template import Reply, encode_prompt, encode_reply
from textadv.data.control_tokens import control_ids
from textadv.data.locating import located, shortened
from textadv.data.rendering import Message, Template
from textadv.models.decoding import context_length
from textadv.models.places import bare, device_of, embedding_table, space_module
from textadv.models.running import evaluating
from textadv.values.batch import Batch, Role, padded
from textadv.values.errors import DataError
from textadv.values.losses import cross_entropy
from textadv.values.spaces import Embeddings

TARGET = "harmful"


@dataclass(frozen=True)
class Slotted:
    """A chat with a text at the end of the user's last turn, whose tokens an attack may change.

    messages: as they were given, without the text. before, slots, after: the tokens of the prompt, those of the text in
    the middle. head, tail: what the template writes around the text. reply: what is to be said.
    """

    messages: tuple[Message, ...]
    before: tuple[int, ...]
    slots: tuple[int, ...]
    after: tuple[int, ...]
    head: str
    tail: str
    reply: Reply

    @property
    def row(self) -> Tensor:
        """The tokens of the text, (S,) int64."""
        return torch.tensor(self.slots, dtype=torch.int64)

    def sent(self, text: str) -> tuple[Message, ...]:
        """The messages with another text in the place of that one."""
        return with_text(self.messages, text)


def with_text(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The messages, the user's last one followed by a text."""
    *earlier, last = messages
    return (*earlier, {**last, "content": last["content"] + text})


@dataclass(frozen=True, eq=False)
class ChatVictim:
    """A chat model as attacks in text know it.

    template: as its chats are written. max_length: the most tokens of a prompt with its answer; None: the positions of
    the model. room: how many of its tokens go into one pass.
    """

    model: nn.Module
    template: Template
    max_length: int | None = None
    room: Room = field(default_factory=Room)

    @cached_property
    def most(self) -> int | None:
        """The most tokens that a prompt with its answer may have; None: any number."""
        limits = [limit for limit in (self.max_length, context_length(bare(self.model))) if limit is not None]
        return min(limits, default=None)

    @property
    def device(self) -> torch.device:
        return device_of(bare(self.model))

    @cached_property
    def vocabulary(self) -> Tensor:
        """The ids (N,) of tokens that a user's own text can have: with an embedding, and none that controls."""
        tokenizer, control = self.template.tokenizer, control_ids(self.template.tokenizer)
        odd = control | {tokenizer.unk_token_id, tokenizer.pad_token_id} | set(tokenizer.added_tokens_decoder)
        most = min(embedding_table(bare(self.model)).shape[0], len(tokenizer))
        return torch.tensor([token for token in range(most) if token not in odd], dtype=torch.int64)

    @cached_property
    def table(self) -> Tensor:
        """The embedding (N, D) of each token of the vocabulary, as the model receives it."""
        return self.embedded(self.vocabulary)

    @torch.no_grad()
    def embedded(self, tokens: Tensor) -> Tensor:
        """The embeddings (N, D) of tokens (N,), as the model receives them."""
        found: Tensor = space_module(self.model, Embeddings())(tokens.to(self.device))
        return found.detach()

    # ---- text -> tokens

    def encoded(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens of the prompt as the template makes them. Raises DataError as `encode_prompt`, or if too long."""
        ids = encode_prompt(self.template, messages).ids
        self._require_room(len(ids) + 1)
        return ids

    def reply(self, messages: Sequence[Message], target: str) -> Reply:
        """What the template writes before an answer, and the target after it, thoughts left out.

        A target is how an answer begins: the model is not to stop there, and what the template writes after an answer
        (a blank, its end of turn) is no part of it. Raises DataError where the target has no text, or does not fit.
        """
        if not isinstance(target, str) or not target.strip():
            raise DataError(f"there is no target to aim at, got {shortened(str(target))}. Give the row one.")
        prompt = encode_prompt(self.template, messages)
        reply = encode_reply(self.template, messages, prompt, target, thoughts=False)
        control, answer = control_ids(self.template.tokenizer), self.template.speech.unclosed(reply.answer)
        kept = next((n for n in range(len(answer), 0, -1) if answer[n - 1] not in control), 0)
        self._require_room(len(prompt) + len(reply.opening) + kept)
        return reply._replace(answer=answer[:kept] or reply.answer)

    def _require_room(self, tokens: int) -> None:
        if self.most is not None and tokens > self.most:
            raise DataError(
                f"prompt and answer have {tokens} tokens and the model reads {self.most}. Shorten what is put into the "
                "prompt, or the target."
            )

    def slotted(self, asked: AskedFor, text: str) -> Slotted:
        """The chat with this text at the end of the user's last turn.

        Raises DataError where the chat does not fit the template, the target is missing, all of it is too long for the
        model, or a token holds parts of the text and of what stands around it.
        """
        require_text(asked)
        sent = with_text(asked.messages, text)
        reply = self.reply(sent, asked.target)
        rendered = located(self.template, sent, generation=True)
        own = [place for place, owner in enumerate(rendered.owners) if owner == len(sent) - 1]
        kept = text if rendered.text[: own[-1] + 1].endswith(text) else text.rstrip()
        stop = own[-1] + 1
        start = stop - len(kept)
        head, tail = rendered.text[:start], rendered.text[stop:]
        encoded = self.template.tokenizer(
            rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        spans, ids = encoded["offset_mapping"], tuple(encoded["input_ids"])
        inside = [place for place, (a, b) in enumerate(spans) if a < stop and b > start and b > a]
        if not inside or rendered.text[spans[inside[0]][0] : start].strip() or spans[inside[-1]][1] > stop:
            raise DataError(
                f"a token holds parts of {shortened(text)} and of what stands beside it, so that it cannot be changed "
                "alone. Begin it with a blank."
            )
        first, last = inside[0], inside[-1] + 1
        return Slotted(asked.messages, ids[:first], ids[first:last], ids[last:], head, tail, reply)

    def texts(self, slotted: Slotted, rows: Tensor) -> list[str]:
        """What tokens (K, S) in the slots are as text, after the tokens that stand before them."""
        # Sentencepiece leaves out the blank that a text begins with, so that a token before it tells.
        anchor = list(slotted.before[-1:])
        decode = self.template.tokenizer.batch_decode
        options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        lead = len(decode([anchor], **options)[0]) if anchor else 0
        return [text[lead:] for text in decode([anchor + row for row in rows.tolist()], **options)]

    def survives(self, slotted: Slotted, rows: Tensor) -> Tensor:
        """(K,) bool, whether the whole chat with these tokens (K, S) as text has them, and all others, again."""
        texts = self.texts(slotted, rows)
        whole = [slotted.head + text + slotted.tail for text in texts]
        ids = self.template.tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"]
        wanted = [[*slotted.before, *row, *slotted.after] for row in rows.tolist()]
        same = [found == want and text == text.rstrip() for found, want, text in zip(ids, wanted, texts, strict=True)]
        return torch.tensor(same, dtype=torch.bool)

    # ---- tokens -> losses

    def batch(self, prompts: Sequence[Sequence[int]], replies: Sequence[Reply]) -> Batch:
        """Prompts (B rows) followed by their openings and targets, on the model's device; nothing is editable."""
        ids = padded(prompts, 0)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        labels = torch.zeros_like(lengths)
        alone = Batch(
            inputs={"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()},
            labels=labels,
            editable=torch.zeros_like(ids, dtype=torch.bool),
            ids=torch.arange(len(prompts)),
            role=torch.full_like(labels, int(Role.ADVERSARIAL)),
            answers={TARGET: padded([reply.answer for reply in replies])},
            openings={TARGET: padded([reply.opening for reply in replies])},
            prompt_lengths=lengths,
        )
        return alone.answering(TARGET).to(self.device)

    def losses(
        self, prompts: Sequence[Sequence[int]], replies: Sequence[Reply], passes: Passes | None = None
    ) -> Tensor:
        """(B,) nats per token of each target after its prompt and opening, on the CPU; counted in `passes`."""
        return self.claims(prompts, replies, passes)[:, 0]

    @torch.no_grad()
    def claims(
        self, prompts: Sequence[Sequence[int]], replies: Sequence[Reply], passes: Passes | None = None
    ) -> Tensor:
        """(B, 2), on the CPU, by whole passes: that loss, and 1 where greedy decoding says opening and target."""

        def of(rows: Tensor) -> Tensor:
            part = rows.tolist()
            batch = self.batch([prompts[row] for row in part], [replies[row] for row in part])
            found = claimed(self.model, batch, cross_entropy)
            if passes is not None:
                passes.forwards += len(part)
                read = [(prompts[row], replies[row]) for row in part]
                passes.forward_tokens += sum(len(ids) + len(one.opening) + len(one.answer) for ids, one in read)
            return found

        with evaluating(bare(self.model)):
            longest = max((len(ids) + len(one.answer) for ids, one in zip(prompts, replies, strict=True)), default=0)
            return self.room.apply(of, torch.arange(len(prompts)), longest, self.device)

    # ---- what is given back

    def finished(
        self,
        asked: AskedFor,
        messages: Sequence[Message],
        *,
        status: Status = "not_reached",
        loss: float | None = None,
        passes: Passes | None = None,
        path: Sequence[tuple[int, float]] = (),
    ) -> Rewritten:
        """The row as it is sent, its tokens made of the text; `failed` where that cannot be."""
        spent = replace(passes) if passes is not None else Passes()
        try:
            ids = self.encoded(messages)
        except DataError as error:
            return failed(asked, str(error), spent)
        return Rewritten(asked.id, tuple(messages), ids, status, "", loss, spent, tuple(path))

    def measured(
        self,
        asked: AskedFor,
        messages: Sequence[Message],
        passes: Passes,
        path: Sequence[tuple[int, float]] = (),
    ) -> Rewritten:
        """The row as it is sent, with the loss of its target then; `reached` where greedy decoding says the target.

        It has to say it at once: where the template writes something before answers (an empty thought), that as well,
        for whoever sends the text sends none of it. A model that thinks first has not reached it.
        """
        try:
            ids, reply = self.encoded(messages), self.reply(messages, asked.target)
        except DataError as error:
            return failed(asked, str(error), passes)
        [[loss, says]] = self.claims([ids], [reply], passes).tolist()
        status: Status = "reached" if says else "not_reached"
        return self.finished(asked, messages, status=status, loss=loss, passes=passes, path=path)


def failed(asked: AskedFor, why: str, passes: Passes | None = None) -> Rewritten:
    """The row of which nothing can be sent, and why."""
    return Rewritten(asked.id, tuple(asked.messages), (), "failed", why, None, passes or Passes())


def require_text(asked: AskedFor) -> None:
    """Raises DataError where there is no text to put anything after."""
    content = asked.messages[-1].get("content") if asked.messages else None
    if not isinstance(content, str) or not content.strip():
        raise DataError(
            f"the prompt is {shortened(str(content))}, and needs text of a user. Correct or remove the row."
        )
