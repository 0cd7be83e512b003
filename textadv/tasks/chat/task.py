"""One run on a chat model, ready to go: everything that can be wrong with its input is found here first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from textadv.attacks import ThreatModel, reach_warning
from textadv.attacks.gradient import GradientAttack
from textadv.config.chat import ChatRunConfig
from textadv.config.text import ConfigError
from textadv.config.training import length_problems
from textadv.data import Chat, ChatRows, ChatSplits, DataError, JoinedRows, encode_chats, find_contamination, joined
from textadv.data.benchmarks import read_instructed
from textadv.data.rendering import Template
from textadv.measuring.judges.verdicts import REFUSAL_LISTS
from textadv.measuring.safety.adversaries import Adversary, Direct, EmbeddingAttack, Prefill
from textadv.measuring.safety.chat import Asked, Panel
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.subject import TARGET_WORDS
from textadv.models import LoadedModel, blocks, device_of, space_module
from textadv.objectives import Objectives
from textadv.tasks.chat import components as build_chat
from textadv.tasks.chat.attacks import chat_attacks, chat_curve
from textadv.tasks.chat.base import deciding, trained_base, unread_notes, useful_answers
from textadv.tasks.chat.template import changed_tokens, chat_hashes, clock_warning, template, template_warnings
from textadv.tasks.launch import launch_warnings, launched, say
from textadv.tasks.output import claim, claiming, free_output, require_room
from textadv.tasks.trial import lighter, read_chats, read_panel, rehearse_chat
from textadv.training.sampling import Benign, Streams
from textadv.values.batch import Role
from textadv.values.host.phases import stage
from textadv.values.randomness import permutation
from textadv.values.spaces import Hidden, Several

BEHAVIOUR_DRAW, BENIGN_DRAW, UTILITY_DRAW, SELECTION_DRAW = 31, 32, 33, 34
THREAT_ROWS = 64


@dataclass(frozen=True)
class ChatTask:
    """What every stage of a run on a chat model shares.

    streams: the chats by role. template: as the model's chats are written. train: all streams' training rows as one.
    threat: with an absolute radius. layers: blocks of the model. panel: what is measured on test rows. selection: the
    same, smaller, on validation rows.
    """

    config: ChatRunConfig
    accelerator: Accelerator
    output: Path
    streams: Mapping[Role, ChatSplits]
    template: Template
    train: JoinedRows
    threat: ThreatModel
    layers: int
    panel: Panel
    selection: Panel
    hashes: dict[str, str]
    warnings: tuple[str, ...]

    def load_model(self) -> LoadedModel:
        """The untrained model, the same weights each time."""
        return build_chat.model(self.config.model, self.config.seed)

    def objectives(self) -> Objectives:
        """What is minimised on the rows of each role; new objects, that remember nothing."""
        return build_chat.objectives(self.config, self.threat, self.layers, self.train.parts[0], self.train.parts[1])

    def sampler(self) -> Streams:
        """The rows of every optimizer step."""
        config, ranges = self.config, self.train.ranges
        return Streams(
            self.train,
            ranges[0],
            ranges[1],
            ranges[2] if len(ranges) > 2 else range(0),
            build_chat.mixing(config),
            config.training.batch_size,
            config.mixing.borderline_share,
            config.objective.defence_steps,
            config.seed,
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
        trained = ", ".join(f"{len(part)} {part.role.name.lower()}" for part in self.train.parts)
        benign = ", ".join(f"{len(asked.texts)} {name}" for name, asked in self.panel.benign.items())
        return (
            f"{trained} to train on, {len(self.selection.requests)} validation behaviours to choose the checkpoint, "
            f"{len(self.panel.requests)} test behaviours and {benign} prompts to report"
        )

    def say(self, line: str) -> None:
        """Prints a line on the main process."""
        say(self.accelerator, line)


@stage("making ready")
def prepare_chat(config: ChatRunConfig, *, training: bool = True) -> ChatTask:
    """Reads, checks and tokenises the streams, loads the model once, resolves the radius, and claims the output folder.

    training: whether the model will be trained: the smallest batches of training are then sent through loss and
    backward. Raises ConfigError, DataError or ModelError, each saying what to change; nothing but empty folders is then
    left behind.
    """
    config, accelerator = launched(config)
    with claiming(accelerator, config, training=training) as config:
        task = _prepared(config, accelerator, training)
    changed = partial(changed_tokens, streams=task.streams, used=task.template)
    claim(config, accelerator, task.output, task.hashes, changed)
    return task


def _prepared(config: ChatRunConfig, accelerator: Accelerator, training: bool) -> ChatTask:
    """See `prepare_chat`; what one process does by itself."""
    output = free_output(config, training=training)
    streams = build_chat.streams(config.data, config.seed)
    loaded = build_chat.model(config.model, config.seed)
    require_room(config, output, loaded.model, training=training)
    used = template(config.model, loaded, config.data.surrogates)
    encoded = {role: _encoded(config, loaded, found) for role, found in streams.items()}
    doubts = read_chats(config, loaded, encoded)
    threat = _threat(config, loaded, encoded[Role.ADVERSARIAL][0])
    panel = _panel(config, loaded, streams, threat)
    task = ChatTask(
        config=config,
        accelerator=accelerator,
        output=output,
        streams=streams,
        template=used,
        train=joined(*(parts[0] for parts in encoded.values())),
        threat=threat,
        layers=len(blocks(loaded.model)),
        panel=panel if not training else replace(panel, base=trained_base(config, panel.useful)),
        selection=_selection(config, loaded, streams, threat),
        hashes=chat_hashes(streams, encoded, loaded, used),
        warnings=(
            *launch_warnings(config, accelerator, training),
            *template_warnings(config, streams, encoded, used),
            *_warnings(config, streams, threat),
            *doubts,
        ),
    )
    _check(task)
    read_panel(config, loaded, task.panel)
    if training:
        unread = unread_notes(task.panel.base, task.panel.useful, task.panel.chats)
        task = replace(task, warnings=(*task.warnings, *unread, *_uncontrolled(task)))
        light = replace(task, config=config.model_copy(update={"attack": lighter(config.attack)}))
        rehearse_chat(config, accelerator, loaded.model, light.objectives(), task.sampler(), task.steps())
    return task


def _encoded(config: ChatRunConfig, loaded: LoadedModel, splits: ChatSplits) -> tuple[ChatRows, ...]:
    """Training and, where there are some, validation and test rows."""
    parts = [part for part in (splits.train, splits.validation, splits.test) if part]
    used = template(config.model, loaded, config.data.surrogates)
    return tuple(encode_chats(part, used, config.data.max_length, editable=config.data.editable) for part in parts)


def _threat(config: ChatRunConfig, loaded: LoadedModel, rows: ChatRows) -> ThreatModel:
    threat = build_chat.threat(config.threat)
    _require_places(config, loaded, threat)
    sample = rows.batch(range(min(len(rows), THREAT_ROWS))).to(device_of(loaded.model))
    return threat.resolved(loaded.model, sample.prompts())


def _require_places(config: ChatRunConfig, loaded: LoadedModel, threat: ThreatModel) -> None:
    """Raises ModelError where the model has no such block, ConfigError where a change there would reach no answer."""
    last = len(blocks(loaded.model)) - 1
    for place in threat.space.places if isinstance(threat.space, Several) else (threat.space,):
        space_module(loaded.model, place)
        if place == Hidden(last) and config.data.editable == "user":
            raise ConfigError(
                [
                    f"threat.layer or threat.layers: {last} is the last block, and what is added there to the user's "
                    f"tokens reaches no token of the answer. Name blocks 0 to {last - 1}."
                ]
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
        task.sampler().check(task.steps(), task.accelerator.num_processes)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError([str(error)]) from error


def _uncontrolled(task: ChatTask) -> Iterable[str]:
    """A sentence where baselines are asked for and no step has a row that they could be trained on."""
    if task.config.baselines and not Benign(task.sampler()).taken(task.steps(), task.accelerator.num_processes):
        yield "baselines: no plain fine-tune is trained: mixing.ratio leaves no step a utility or borderline row."


def requests(chats: Sequence[Chat]) -> tuple[str, ...]:
    """What the user asks in each chat, in all turns."""
    return tuple(chat.request for chat in chats)


def shown(chats: Sequence[Chat]) -> tuple[str, ...]:
    """What judges see of each chat: all its turns."""
    return tuple(chat.conversation for chat in chats)


def _targets(chats: Sequence[Chat], used: Template) -> tuple[str, ...]:
    """What the adversary wants said in each chat, thoughts left out."""
    return tuple(used.split(chat.answers["harmful"]).text for chat in chats)


def _drawn(config: ChatRunConfig, draw: int, chats: Sequence[Chat], wanted: int | None) -> list[Chat]:
    """A seeded subset, in order; each chat once, whatever others share of its turns."""
    once = list({chat.conversation: chat for chat in reversed(chats)}.values())[::-1]
    return [once[place] for place in sorted(permutation(config.seed, draw, size=len(once))[:wanted])]


def _test(streams: Mapping[Role, ChatSplits], role: Role) -> tuple[Chat, ...]:
    found = streams[role].test if role in streams else ()
    if not found and role in streams:
        key = role.name.lower()
        raise DataError(
            f"data.{key}: no test rows. Name data.{key}.test, or hold some out with data.{key}.test_fraction."
        )
    return found


def _panel(
    config: ChatRunConfig, loaded: LoadedModel, streams: Mapping[Role, ChatSplits], threat: ThreatModel
) -> Panel:
    wanted, used = config.evaluation, template(config.model, loaded, config.data.surrogates)
    chats = _drawn(config, BEHAVIOUR_DRAW, _test(streams, Role.ADVERSARIAL), wanted.behaviours)
    rows = encode_chats(chats, used, config.data.max_length, editable=config.data.editable)
    utility = _drawn(config, UTILITY_DRAW, _test(streams, Role.UTILITY), wanted.utility)
    benign = {}
    if Role.BORDERLINE in streams:
        close = _drawn(config, BENIGN_DRAW, _test(streams, Role.BORDERLINE), wanted.benign)
        benign["borderline"] = Asked.of_chats(used, close)
    for name, path in wanted.over_refusal.items():
        prompts = build_chat.benign_prompts(name, path, config.data.surrogates)
        kept = sorted(permutation(config.seed, BENIGN_DRAW, size=len(prompts))[: wanted.benign])
        benign[name] = Asked.of(used, [prompts[place] for place in kept], kept)
    instructions = {}
    for name, path in wanted.instructions.items():
        found = read_instructed(path, config.data.surrogates)
        instructions[name] = (found, Asked.of(used, [prompt.prompt for prompt in found]))
    targets = _targets(chats, used)
    others = tuple(build_chat.second_judges(wanted, dict(zip(shown(chats), targets, strict=True))))
    return Panel(
        behaviours=rows,
        requests=requests(chats),
        attacks=chat_attacks(config, loaded, chats, threat),
        curve=chat_curve(config, loaded, threat),
        judge=REFUSAL_LISTS[wanted.judge],
        others=others,
        benign=benign,
        utility=encode_chats(utility, used, config.data.max_length),
        questions={
            name: build_chat.questions(name, path, config.data.surrogates) for name, path in wanted.questions.items()
        },
        instructions=instructions,
        decoding=Decoding(
            wanted.max_new_tokens, wanted.temperature, wanted.samples, config.seed, batch_size=wanted.batch_size
        ),
        chats=tuple(chat.messages for chat in chats),
        targets=targets,
        target_words=wanted.target_words or TARGET_WORDS,
        useful=useful_answers(utility, used),
        decides=deciding(others),
        shown=shown(chats),
    )


def _selection(
    config: ChatRunConfig, loaded: LoadedModel, streams: Mapping[Role, ChatSplits], threat: ThreatModel
) -> Panel:
    """Direct request, one prefill and the embedding attack on validation behaviours; benign validation prompts."""
    wanted = config.selection
    chats = _drawn(config, SELECTION_DRAW, streams[Role.ADVERSARIAL].validation, wanted.rows)
    close = streams.get(Role.BORDERLINE, streams[Role.UTILITY]).validation
    asked = _drawn(config, SELECTION_DRAW, close, wanted.rows)
    if not chats or not asked:
        raise DataError("selection: adversarial and borderline (or utility) need validation rows, and one has none.")
    attack = build_chat.measuring_attack(wanted.attack, "selection.attack", threat, config.seed)
    attacks: dict[str, Adversary] = {"direct": Direct(), "embedding": EmbeddingAttack(attack)}
    if wanted.prefill:
        attacks["prefill"] = Prefill(wanted.prefill)
    used = template(config.model, loaded, config.data.surrogates)
    rows = encode_chats(chats, used, config.data.max_length, editable=config.data.editable)
    return Panel(
        behaviours=rows,
        requests=requests(chats),
        attacks=attacks,
        judge=REFUSAL_LISTS[config.evaluation.judge],
        others=(),
        benign={"benign": Asked.of_chats(used, asked)},
        utility=rows,
        questions={},
        instructions={},
        decoding=Decoding(wanted.max_new_tokens, batch_size=config.evaluation.batch_size),
        shown=shown(chats),
    )


def _warnings(config: ChatRunConfig, streams: Mapping[Role, ChatSplits], threat: ThreatModel) -> Iterable[str]:
    """What a reader must know before trusting a number."""
    yield from (note for splits in streams.values() for note in splits.notes)
    if any(part.name in ("cat", "capo", "lat") for part in config.objective.parts):
        adversary = build_chat.eliciting(config, threat)
        if isinstance(adversary, GradientAttack) and (short := reach_warning(adversary)) is not None:
            yield short
    trained = [text for splits in streams.values() for text in requests(splits.train)]
    tested = {role.name.lower(): requests(splits.test) for role, splits in streams.items() if splits.test}
    tested |= {
        name: build_chat.benign_prompts(name, path, config.data.surrogates)
        for name, path in config.evaluation.over_refusal.items()
    }
    for name, prompts in tested.items():
        found = find_contamination(trained, prompts)
        if found.pairs:
            yield f"{name}: {found}"


@stage("making ready")
def with_chat_model(task: ChatTask, name: str) -> ChatTask:
    """The task for another model with the same radius and rows, tokenised by its own tokenizer.

    Raises ConfigError, DataError or ModelError as `prepare_chat` does.
    """
    config = task.config.model_copy(update={"model": task.config.model.model_copy(update={"name": name})})
    loaded = build_chat.model(config.model, config.seed)
    _require_places(config, loaded, task.threat)
    used = template(config.model, loaded, config.data.surrogates)
    panel = _panel(config, loaded, task.streams, task.threat)
    read_panel(config, loaded, panel)
    return replace(
        task,
        config=config,
        template=used,
        layers=len(blocks(loaded.model)),
        panel=panel,
        hashes=chat_hashes(task.streams, {}, loaded, used),
        warnings=(*task.warnings, *(f"{name}: {line}" for line in clock_warning(task.streams, used))),
    )


@stage("making ready")
def inspected(config: ChatRunConfig) -> tuple[LoadedModel, Panel]:
    """The model and what would be measured on it; without a run or an output folder.

    Raises ConfigError, DataError or ModelError as `prepare_chat` does.
    """
    streams = build_chat.streams(config.data, config.seed)
    loaded = build_chat.model(config.model, config.seed)
    rows = _encoded(config, loaded, streams[Role.ADVERSARIAL])
    read_chats(config, loaded, {Role.ADVERSARIAL: rows})
    threat = _threat(config, loaded, rows[0])
    panel = _panel(config, loaded, streams, threat)
    read_panel(config, loaded, panel)
    return loaded, panel
