"""One run on a chat model, ready to go: everything that can be wrong with its input is found here first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from textadv.attacks import ThreatModel, reach_warning
from textadv.attacks.gradient import GradientAttack
from textadv.attacks.prompts.seeding import Seeding
from textadv.config.training import length_problems
from textadv.config.types import ConfigError
from textadv.data import ChatSplits, JoinedRows, find_contamination, joined
from textadv.data.paraphrases import Joined
from textadv.data.rendering import Template
from textadv.measuring import Measured, Results, Training
from textadv.measuring.identity import key_of
from textadv.measuring.judges.verdicts import XSTEST
from textadv.measuring.results import Facts
from textadv.measuring.safety.chat import Panel, evaluate_chat
from textadv.measuring.safety.results import chat_results
from textadv.measuring.sections.exports import ExportCheck
from textadv.models import LoadedModel, blocks
from textadv.models.generation_settings import unapplied_notes
from textadv.models.strangers import Chats
from textadv.objectives import Objectives, memory_of
from textadv.objectives.alignment import Supervised
from textadv.objectives.seeded import Seeded
from textadv.tasks.chat.asked import benign_prompts
from textadv.tasks.chat.base import common_base, trained_base, unread_notes
from textadv.tasks.chat.choosing import chat_scores, plain_score, require_answers
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.loading import encoded_parts, read_chats, require_places, resolved_threat
from textadv.tasks.chat.panel import panel, read_panel, repeated_notes, requests, require_scaled, selection
from textadv.tasks.chat.paraphrasing import with_paraphrases
from textadv.tasks.chat.scene import eliciting_attack
from textadv.tasks.chat.seeding import lighter_chat, room_notes, seeding
from textadv.tasks.chat.seeds import seeds_hashes
from textadv.tasks.chat.template import changed_tokens, chat_hashes, clock_warning, template, template_warnings
from textadv.tasks.protocol import Plan, Run
from textadv.training.rehearsal import Rehearsal, rehearse
from textadv.training.sampling import Benign, Streams
from textadv.values.batch import Role
from textadv.values.descriptions import described
from textadv.values.host.phases import stage
from textadv.values.plurals import some


@dataclass(frozen=True)
class ChatTask:
    """What every stage of a run on a chat model shares.

    streams: the chats by role. template: as the model's chats are written. train: all streams' training rows as one.
    threat: with an absolute radius. layers: blocks of the model. panel: what is measured on test rows. selection: the
    same, smaller, on validation rows. variants: see `Streams`. seeds: prompts that were read
    for attack.seeds, of each adversarial training chat.
    """

    config: ChatRunConfig
    run: Run
    streams: Mapping[Role, ChatSplits]
    template: Template
    train: JoinedRows
    threat: ThreatModel
    layers: int
    panel: Panel
    selection: Panel
    hashes: dict[str, str]
    warnings: tuple[str, ...]
    variants: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    seeds: Joined | None = None

    @property
    def new_weights(self) -> tuple[str, ...]:
        """None: a chat model without its head is refused when it is loaded."""
        return ()

    def load(self) -> LoadedModel:
        """The untrained model, the same weights each time."""
        return self.config.model.make(self.config.seed)

    def objectives(self) -> Objectives:
        """What is minimised on the rows of each role; new objects, that remember nothing."""
        found = self.config.objective.make(
            self.config.attack, self.threat, self.config.seed, self.layers, self.train.parts[0], self.train.parts[1]
        )
        begun = self.seeding()
        if begun is None:
            return found
        return {**found, Role.ADVERSARIAL: Seeded(found[Role.ADVERSARIAL], begun)}

    def seeding(self) -> Seeding | None:
        """What attack.seeds names, with an empty pool; None where it names nothing."""
        chats, rows = self.streams[Role.ADVERSARIAL].train, self.train.parts[0]
        return seeding(self.config, self.template, chats, rows, self.variants, self.seeds)

    def sampler(self) -> Streams:
        """The rows of every optimizer step."""
        config, ranges = self.config, self.train.ranges
        return Streams(
            self.train,
            ranges[0][: len(self.streams[Role.ADVERSARIAL].train)],
            ranges[1],
            ranges[2] if len(ranges) > 2 else range(0),
            config.mixing.make(config.seed),
            config.training.batch_size,
            config.mixing.borderline_share,
            config.objective.defence_steps,
            config.seed,
            self.variants,
        )

    def steps(self) -> int:
        """Optimizer steps; an epoch passes the utility rows as often as they would be without the other streams."""
        training = self.config.training
        if training.steps is not None:
            return training.steps
        assert training.epochs is not None
        return max(round(training.epochs * len(self.train.parts[1]) / training.batch_size), 1)

    def rows_text(self) -> str:
        """How many rows do what, for the screen."""
        trained = ", ".join(f"{len(part.train)} {role.name.lower()}" for role, part in self.streams.items())
        more = sum(map(len, self.variants.values())) - len(self.variants)
        trained += f" and {more} paraphrases" if more else ""
        benign = ", ".join(f"{len(asked.texts)} {name}" for name, asked in self.panel.benign.items())
        return (
            f"{trained} to train on, {some(len(self.selection.requests), 'validation behaviour')} to choose the "
            "checkpoint, "
            f"{some(len(self.panel.requests), 'test behaviour')} and {benign} prompts to report"
        )

    def hardening(self, loaded: LoadedModel) -> Plan:
        """With the configured objective; the checkpoint is the best on held-out validation rows.

        The score is the share of validation behaviours that nothing broke times the share of benign validation prompts
        that were answered: neither a model that refuses everything nor one that says everything is chosen. Raises
        ConfigError where the model would answer nothing within selection.max_new_tokens.
        """
        used, held = template(self.config.model, loaded), self.config.objective.held_steps
        require_answers(loaded.model, used, self.selection, self.run.accelerator.device)
        judges = f"{self.selection.judge.name}, those to benign prompts by {XSTEST.name}"
        self.run.say(f"hardened: validation answers to behaviours are judged by {judges}")
        size, objectives = self.config.training.batch_size, self.objectives()
        return Plan(
            objective=" + ".join(part.name for part in self.config.objective.parts),
            steps=self.steps(),
            period=max(-(-self.steps() // 4), 1),
            whole_every=held,
            sampler=self.sampler(),
            objectives=objectives,
            memory=memory_of(objectives[Role.ADVERSARIAL]),
            score=partial(chat_scores, used=used, panel=self.selection, say=self.run.say),
            select="robust_best",
            rows=lambda steps: steps * size,
        )

    def plain(self, loaded: LoadedModel) -> Plan:
        """In the steps and settings of hardening: the same utility and borderline rows, nothing attacked.

        Each row's own answer is learned (cross-entropy), whatever objective.parts holds, weighed as the hardened
        model's is. The checkpoint is the one of the lowest perplexity on utility validation rows.
        """
        config, sampler = self.config, Benign(self.sampler())
        weight = config.objective.utility or 1.0
        useful = self.streams[Role.UTILITY].validation[: config.selection.rows]
        used = template(config.model, loaded, config.data.surrogates)
        return Plan(
            objective="plain",
            steps=self.steps(),
            period=max(-(-self.steps() // 4), 1),
            whole_every=config.objective.held_steps,
            sampler=sampler,
            objectives={Role.UTILITY: Supervised(weight), Role.BORDERLINE: Supervised(weight)},
            score=plain_score(useful, used, config.data.max_length),
            select="clean_best",
            rows=partial(sampler.taken, processes=self.run.accelerator.num_processes),
        )

    def reader(self, loaded: LoadedModel) -> Chats:
        """The validation behaviours and useful chats that choose the checkpoint, as others give them to a model."""
        config, chosen = self.config, set(self.selection.behaviours.ids)
        return Chats(
            loaded,
            template(config.model, loaded),
            (
                [chat for chat in self.streams[Role.ADVERSARIAL].validation if chat.id in chosen],
                self.streams[Role.UTILITY].validation[: config.selection.rows],
            ),
            config.data.max_length,
            config.training.micro_batch_size,
            config.model.trust_remote_code,
            config.model.quantization is not None,
        )

    def measure(self, name: str, loaded: LoadedModel) -> Measured:
        """The model on the test rows, by every measure of the panel; answers go to `answers/` in the output folder."""
        device, used = self.run.accelerator.device, template(self.config.model, loaded)
        if self.panel.base is not None:
            self.panel.base.model.to(device)
        return evaluate_chat(
            name,
            loaded.model.to(device),
            used,
            self.panel,
            key=key_of((described(loaded.model),), used.reading),
            folder=self.run.output / "answers",
            say=self.run.say,
        )

    def results(
        self, models: Sequence[Measured], trainings: Sequence[Training], facts: Facts, exports: Sequence[ExportCheck]
    ) -> Results:
        """See `chat_results`."""
        return chat_results(models, trainings, facts, exports, threat=str(self.threat))

    def compared(self, names: Sequence[str]) -> list[ChatTask]:
        """A task for each model, all with the base that `common_base` finds for these."""
        tasks = [self, *(_beside(self, name) for name in names[1:])]
        scaled = require_scaled(self.config, dict(zip(names, (one.panel for one in tasks), strict=True)))
        base, unknown = common_base(self.config, names, self.panel.useful)
        unknown = (*unknown, *unread_notes(base, self.panel.useful, self.panel.chats), *scaled)
        tasks = [replace(one, panel=replace(one.panel, base=base)) for one in tasks]
        return [*tasks[:-1], replace(tasks[-1], warnings=(*tasks[-1].warnings, *unknown))]

    def explain(self, changed: Sequence[str]) -> str:
        """See `changed_tokens`."""
        return changed_tokens(changed, self.streams, self.template)


def ready(config: ChatRunConfig, run: Run) -> ChatTask:
    """See `registry.ready`."""
    streams = config.data.make(config.seed)
    found = config.data.paraphrased(streams[Role.ADVERSARIAL]) if run.training else None
    seeds = config.seeded(streams[Role.ADVERSARIAL]) if run.training else None
    loaded = config.model.make(config.seed)
    run.require_room(loaded.model)
    used = template(config.model, loaded, config.data.surrogates)
    encoded = {role: encoded_parts(config, loaded, found) for role, found in streams.items()}
    harmful, *held = encoded[Role.ADVERSARIAL]
    chats = streams[Role.ADVERSARIAL].train
    more = with_paraphrases(config, loaded, used, chats, harmful, found, run.accelerator.device)
    read = {**encoded, Role.ADVERSARIAL: (more.rows, *held)}
    doubts = read_chats(config, loaded, read)
    threat = resolved_threat(config, loaded, encoded[Role.ADVERSARIAL][0])
    measured = panel(config, loaded, streams, threat)
    task = ChatTask(
        config=config,
        run=run,
        streams=streams,
        template=used,
        train=joined(*(parts[0] for parts in read.values())),
        threat=threat,
        layers=len(blocks(loaded.model)),
        panel=measured if not run.training else replace(measured, base=trained_base(config, measured.useful)),
        selection=selection(config, loaded, streams, threat),
        hashes=chat_hashes(streams, encoded, loaded, used) | more.hashes | seeds_hashes(seeds),
        warnings=(
            *run.notes,
            *template_warnings(config, streams, encoded, used),
            *more.notes,
            *(() if seeds is None else seeds.notes),
            *_warnings(
                config,
                streams,
                threat,
                [*more.texts, *(text for own in seeds.texts for text in own)] if seeds else more.texts,
            ),
            *doubts,
            *unapplied_notes(config.model.name, loaded.model, config.evaluation.temperature),
            *(line for part in config.objective.parts for line in part.doubts(loaded.model)),
        ),
        variants=more.variants,
        seeds=seeds,
    )
    _check(task)
    read_panel(config, loaded, task.panel)
    if run.training:
        require_scaled(config, {config.model.name: task.panel})
        unread = unread_notes(task.panel.base, task.panel.useful, task.panel.chats)
        room = room_notes(config, task.seeding(), chats, harmful, seeds)
        task = replace(task, warnings=(*task.warnings, *room, *unread, *_uncontrolled(task)))
        _rehearse(task, loaded)
    return task


def _rehearse(task: ChatTask, loaded: LoadedModel) -> None:
    """Tries the smallest forwards and backwards that training makes, with an attack of one step; see `rehearse`."""
    config, size = task.config, task.config.training.micro_batch_size
    light = replace(task, config=config.model_copy(update={"attack": lighter_chat(config.attack)}))
    objectives, samplers = light.objectives(), [task.sampler()]
    accelerator = task.run.accelerator
    rehearse(
        loaded.model,
        Rehearsal(accelerator, config.model.name, objectives, samplers, task.steps(), size, config.seed),
    )


def _check(task: ChatTask) -> None:
    """What only shows when the parts are put together: objectives and shares of a batch."""
    config = task.config
    lines = length_problems(config.training, task.steps())
    if lines:
        raise ConfigError(lines)
    try:
        hardening = task.objectives()[Role.ADVERSARIAL]
        if config.mixing.policy == "pair" and hardening.keeps_clean:
            raise ConfigError(
                [
                    "mixing.policy: pair counts the safe answer at the plain prompt twice: objective.parts already "
                    "holds it. Set mixing.policy: replace."
                ]
            )
        task.sampler().check(task.steps(), task.run.accelerator.num_processes)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError([str(error)]) from error


def _uncontrolled(task: ChatTask) -> Iterable[str]:
    """A sentence where baselines are asked for and no step has a row that they could be trained on."""
    if task.config.baselines and not Benign(task.sampler()).taken(task.steps(), task.run.accelerator.num_processes):
        yield "baselines: no plain fine-tune is trained: mixing.ratio leaves no step a utility or borderline row."


def _warnings(
    config: ChatRunConfig, streams: Mapping[Role, ChatSplits], threat: ThreatModel, paraphrases: Sequence[str]
) -> Iterable[str]:
    """What a reader must know before trusting a number. paraphrases: further prompts that are trained on."""
    yield from (note for splits in streams.values() for note in splits.notes)
    yield from repeated_notes(streams)
    if any(part.searching for part in config.objective.parts):
        adversary = eliciting_attack(config.attack, threat, config.seed)
        if isinstance(adversary, GradientAttack) and (short := reach_warning(adversary)) is not None:
            yield short
    trained = [*(text for splits in streams.values() for text in requests(splits.train)), *paraphrases]
    tested = {role.name.lower(): requests(splits.test) for role, splits in streams.items() if splits.test}
    tested |= {
        name: benign_prompts(name, path, config.data.surrogates)
        for name, path in config.evaluation.over_refusal.items()
    }
    for name, prompts in tested.items():
        found = find_contamination(trained, prompts)
        if found.pairs:
            yield f"{name}: {found}"


@stage("making ready")
def _beside(task: ChatTask, name: str) -> ChatTask:
    """The task for another model with the same radius and rows, tokenised by its own tokenizer.

    Raises ConfigError, DataError or ModelError as `ready` does.
    """
    config = task.config.of_model(name)
    loaded = config.model.make(config.seed)
    require_places(config, loaded, task.threat)
    used = template(config.model, loaded, config.data.surrogates)
    measured = panel(config, loaded, task.streams, task.threat)
    read_panel(config, loaded, measured)
    return replace(
        task,
        config=config,
        template=used,
        layers=len(blocks(loaded.model)),
        panel=measured,
        hashes=chat_hashes(task.streams, {}, loaded, used),
        warnings=(
            *task.warnings,
            *(f"{name}: {line}" for line in clock_warning(task.streams, used)),
            *unapplied_notes(name, loaded.model, config.evaluation.temperature),
        ),
    )
