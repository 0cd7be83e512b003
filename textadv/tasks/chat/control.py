"""Plain fine-tunes of a chat model on the benign rows of its hardening: what those rows do by themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from textadv.data import encode_chats
from textadv.measuring.capability.likelihood import answer_nll
from textadv.models import LoadedModel
from textadv.objectives import Objectives
from textadv.objectives.alignment import Supervised
from textadv.tasks.chat.stages import ChatStage, settings_of, summary_of, trained_chat
from textadv.tasks.chat.task import ChatTask
from textadv.tasks.chat.template import template
from textadv.tasks.stages import NAMES, Baseline, equal_cost_steps
from textadv.training.progress import Scores
from textadv.training.sampling import Benign
from textadv.values.batch import Role
from textadv.values.host.phases import stage


def controls(task: ChatTask) -> tuple[Baseline, ...]:
    """The configured baselines; none where every step of the run is made of adversarial rows alone."""
    return tuple(task.config.baselines) if Benign(task.sampler()).taken(task.steps(), _world(task)) else ()


@stage("training")
def train_control(task: ChatTask, kind: Baseline, hardened: ChatStage) -> ChatStage:
    """A plain fine-tune in the steps and settings of hardening: the same utility and borderline rows, nothing attacked.

    Each row's own answer is learned (cross-entropy), whatever objective.parts holds. Of as many optimizer steps, or of
    as many passes as hardening took. The checkpoint is the one of the lowest perplexity on utility validation rows: the
    strongest rival of a perplexity; its score is one over that.
    """
    sampler, steps, name = Benign(task.sampler()), task.steps(), NAMES[kind]
    if kind == "equal_cost":
        steps = equal_cost_steps(hardened.summary, sampler.taken(steps, _world(task)) / steps)
    loaded = task.load_model()
    settings = replace(settings_of(task), steps=steps, select="clean_best")
    trained = trained_chat(task, name, loaded, sampler, plain_objectives(task), plain_score(task, loaded), settings)
    told = summary_of(task, name, trained)
    rows = sampler.taken(told.steps, _world(task))
    return ChatStage(loaded, trained, replace(told, objective="plain", rows_seen=rows))


def plain_objectives(task: ChatTask) -> Objectives:
    """Supervised learning on benign rows, weighed as the hardened model's is."""
    weight = task.config.objective.utility or 1.0
    return {Role.UTILITY: Supervised(weight), Role.BORDERLINE: Supervised(weight)}


def plain_score(task: ChatTask, loaded: LoadedModel) -> Callable[[nn.Module], Scores] | None:
    """One over the perplexity on as many utility validation rows as select the hardened model; None without rows."""
    config = task.config
    chats = task.streams[Role.UTILITY].validation[: config.selection.rows]
    if not chats:
        return None
    used = template(config.model, loaded, config.data.surrogates)
    rows = encode_chats(chats, used, config.data.max_length)

    def score(model: nn.Module) -> Scores:
        found = answer_nll(model, rows.pairs)
        nats = sum(row.nll for row in found) / sum(row.tokens for row in found)
        return Scores(math.exp(-nats), None, collapsed=False, meaning="one over the perplexity")

    return score


def _world(task: ChatTask) -> int:
    return task.accelerator.num_processes
