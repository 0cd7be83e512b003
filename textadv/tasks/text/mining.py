"""Hard rows for a classifier of texts: what edits make it get wrong, of training rows and of held-out ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn

from textadv.attacks.edits import EditAttack, EditedRow, PastThreshold, Victim
from textadv.config.edit_sources import EditSources
from textadv.config.types import ConfigError
from textadv.data import EncodedRows, Examples, Splits, encode
from textadv.measuring.accuracy.detecting import Detector
from textadv.models import LoadedModel, bare
from textadv.tasks.protocol import Plan, Run
from textadv.tasks.text.config import RunConfig
from textadv.tasks.text.editing import Editing
from textadv.training.mining import HardRow, Mined, MinedMemory, MinedRows, Round, Tried, round_steps
from textadv.training.sampling import OneStream
from textadv.values.descriptions import SETTINGS
from textadv.values.processes import from_shares, own_share
from textadv.values.randomness import permutation
from textadv.values.windows import margins

MINING_DRAW, HELD_OUT_DRAW = 45, 46
KEY = "mining.edits"


@dataclass(frozen=True)
class EditMiner:
    """Tries attacks by edits on training rows, and adds what the model then has wrong to `sampler`.

    attacks: by name. held_out: validation rows, on which the same attacks are measured and nothing is kept. rows,
    held_out_rows: how many of each. steps: before which rows are mined; before the last, nothing is added any more.
    victim: gives the model as texts reach it. detector: where there is one, wrong is what is on the other side of its
    first threshold, chosen anew each time; else another class.
    """

    attacks: Mapping[str, EditAttack]
    train: Examples
    held_out: Examples
    rows: int
    held_out_rows: int
    steps: Sequence[int]
    victim: Callable[[nn.Module], Victim]
    sampler: MinedRows
    detector: Detector | None = None
    batch_size: int = 64
    seed: int = 0

    def __call__(self, model: nn.Module, step: int) -> Mined:
        """One round. Every process must call it; each searches a part of the rows."""
        began, model, number = time.perf_counter(), bare(model), self.steps.index(step)
        victim, limit, forwards = self.victim(model), None, 0
        if self.detector is not None:
            limits, scores = self.detector.thresholds(model, self.batch_size)
            limit, forwards = limits[0].value, len(scores)
        aimed = {key: self._aimed(attack, limit) for key, attack in self.attacks.items()}
        last = number == len(self.steps) - 1
        seen = {
            key: [] if last else self._edited(victim, attack, self.train, self.rows, MINING_DRAW, number)
            for key, attack in aimed.items()
        }
        every = [row for rows in seen.values() for row in rows]
        slopes = sum(row.slopes for row in every)
        forwards += slopes + sum(row.queries for row in every)
        seconds = time.perf_counter() - began
        tried, hard = [], list[HardRow]()
        for key, attack in aimed.items():
            apart = self._edited(victim, attack, self.held_out, self.held_out_rows, HELD_OUT_DRAW, 0)
            wrong = [row for row in seen[key] if self._wrong(row, limit)]
            hard += [HardRow(row.edited, row.pair, row.label) for row in wrong if row.edited != row.text]
            untried = sum(row.untried for row in (*seen[key], *apart))
            held_out = tuple(self._wrong(row, limit) for row in apart)
            tried.append(Tried(key, len(seen[key]), len(wrong), held_out, untried))
        found = Round(step, tuple(tried), self.sampler.add(hard), len(self.sampler.found))
        return Mined(found) if last else Mined(found, forwards, slopes, seconds)

    def _aimed(self, attack: EditAttack, limit: float | None) -> EditAttack:
        """The attack on what is wrong."""
        if self.detector is None or limit is None:
            return attack
        return replace(attack, goal=PastThreshold(self.detector.positive, limit))

    def _edited(
        self, victim: Victim, attack: EditAttack, rows: Examples, count: int, draw: int, number: int
    ) -> list[EditedRow]:
        """So many rows of the classes that the attack edits, edited; those that the model cannot be asked about left
        out."""
        able = [place for place, label in enumerate(rows.labels) if attack.attacks(label)]
        drawn = permutation(self.seed, draw, number, size=len(able))[:count]
        chosen = sorted(able[n] for n in drawn)
        mine = attack(victim, rows.select(own_share(chosen)), step=number).rows
        found = {row.id: row for row in from_shares(list(mine), victim.model)}
        return [found[rows.ids[place]] for place in chosen if found[rows.ids[place]].after]

    def _wrong(self, row: EditedRow, limit: float | None) -> bool:
        if self.detector is None or limit is None:
            return row.prediction != row.label
        score = margins(torch.tensor([row.after]), self.detector.positive).item()
        return (score > limit) != (row.label == self.detector.positive)


def with_hard_rows(
    train: EncodedRows, hard: Sequence[HardRow], encoded: Callable[[Examples], EncodedRows]
) -> EncodedRows:
    """The training rows with hard rows behind them, numbered on from the highest id. encoded: tokenises texts."""
    first = max(train.ids, default=-1) + 1
    pairs = None if train.pairs is None else tuple(row.pair or "" for row in hard)
    ids = tuple(range(first, first + len(hard)))
    more = encoded(Examples(tuple(row.text for row in hard), pairs, tuple(row.label for row in hard), ids))
    return replace(
        train,
        features=(*train.features, *more.features),
        editable=(*train.editable, *more.editable),
        labels=(*train.labels, *more.labels),
        ids=(*train.ids, *more.ids),
        spelled=(*train.spelled, *more.spelled),
        spans=(*train.spans, *more.spans),
        texts=(*train.texts, *more.texts),
        pairs=None if train.pairs is None else (*train.pairs, *(more.pairs or ())),
    )


@dataclass(frozen=True)
class Mining:
    """The mining of a run, where its configuration wants any and it trains: on which rows, with which attacks."""

    config: RunConfig
    splits: Splits
    sources: EditSources
    attacks: Mapping[str, EditAttack]

    @classmethod
    def of(cls, config: RunConfig, splits: Splits, sources: EditSources, run: Run) -> Mining:
        """The mining of this configuration.

        Raises ConfigError where an attack cannot be made, or edits rows of classes that no training row is of.
        """
        if config.mining is None or not run.training:
            return cls(config, splits, sources, {})
        attacks = config.mining.attacks(config.seed, sources)
        idle = [key for key, attack in attacks.items() if not any(map(attack.attacks, set(splits.train.labels)))]
        if idle:
            raise ConfigError(
                [f"{KEY}.{key}: no training row is of a class whose rows it edits. Leave it out." for key in idle]
            )
        return cls(config, splits, sources, attacks)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of all that each attack follows from."""
        read = {f"{SETTINGS}{KEY}.{key}": attack.reading for key, attack in self.attacks.items() if attack.reading}
        return {f"{KEY}.{key}": attack.identity for key, attack in self.attacks.items()} | read

    def rehearse(self, loaded: LoadedModel, run: Run, rows: int) -> None:
        """Tries each attack where the run will train. rows: of the training data.

        Raises ConfigError where one cannot work on this model, there are too few steps for the rounds, or the launcher
        shards the model.
        """
        wanted = self.config.mining
        if wanted is None or not run.training:
            return
        if run.accelerator.distributed_type is DistributedType.FSDP:
            told = "mining makes processes run different numbers of passes, which FSDP cannot do."
            raise ConfigError([f"{told} Use DDP, or set mining: null."])
        try:
            round_steps(wanted.rounds, self.config.training.optimizer_steps(rows))
        except ValueError as error:
            raise ConfigError([f"{error} Lower it, or train for longer."]) from error
        Editing(self.attacks, self.sources, self.splits.train, self.splits.labels, KEY).rehearse(self.config, loaded)

    def planned(self, tokenizer: Any, detector: Detector | None, plan: Plan) -> Plan:
        """The plan of a hardening on which hard rows are mined; as it is where the configuration wants none."""
        config, wanted, stream = self.config, self.config.mining, plan.sampler
        if wanted is None:
            return plan
        windows, length = config.data.reading(self.splits.labels), config.data.max_length
        assert isinstance(stream, OneStream) and isinstance(stream.rows, EncodedRows)
        encoded = partial(encode, tokenizer=tokenizer, max_length=length, windows=windows)
        sampler = MinedRows(stream, partial(with_hard_rows, stream.rows, encoded=encoded), wanted.share)
        miner = EditMiner(
            self.attacks,
            self.splits.train,
            self.splits.validation,
            wanted.rows,
            wanted.held_out,
            round_steps(wanted.rounds, plan.steps),
            partial(Victim, tokenizer=tokenizer, max_length=length, windows=windows),
            sampler,
            detector,
            config.evaluation.batch_size,
            config.seed,
        )
        return replace(plan, sampler=sampler, memory=MinedMemory(sampler, plan.memory), miner=miner)
