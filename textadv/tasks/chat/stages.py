"""The stages of a run on a chat model: train, evaluate, export, report; plain fine-tunes are in `stages_control`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from textadv.config.text import ConfigError
from textadv.measuring.judges.verdicts import XSTEST
from textadv.measuring.measured import Measured
from textadv.measuring.results import Results, Training
from textadv.measuring.safety.chat import evaluate_chat, share_answered
from textadv.measuring.safety.earlier import chat_results
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.generate import Prompt, answers
from textadv.measuring.safety.kept_answers import Answer
from textadv.measuring.safety.sanity import said_doubt
from textadv.models import LoadedModel
from textadv.models.strangers import Chats
from textadv.objectives import Objectives
from textadv.tasks import components as build
from textadv.tasks.chat.task import ChatTask
from textadv.tasks.chat.template import template
from textadv.tasks.exporting import Exported, exported
from textadv.tasks.output import carried, resumed_from
from textadv.tasks.stages import facts_of, slug, written_results
from textadv.training.progress import Scores, Settings, Trained
from textadv.training.sampling import Sampler
from textadv.training.trainer import Trainer
from textadv.values.batch import Role
from textadv.values.digests import weights_hash
from textadv.values.host.phases import stage, within


@dataclass(frozen=True)
class ChatStage:
    """A trained chat model and how it came about."""

    loaded: LoadedModel
    trained: Trained
    summary: Training

    @property
    def name(self) -> str:
        """That of its evaluation: "hardened", "plain" or "plain, equal cost"."""
        return self.summary.name


@stage("training")
def train_chat(task: ChatTask) -> ChatStage:
    """Trains with the configured objective; the checkpoint is the best on held-out validation rows.

    The score is the share of validation behaviours that nothing broke times the share of benign validation prompts that
    were answered: neither a model that refuses everything nor one that says everything is chosen.

    Raises ConfigError where the model would answer nothing within selection.max_new_tokens, NonFiniteError or
    DeadAdversaryError; what was kept until then stays in the output folder.
    """
    loaded = task.load_model()
    _require_answers(task, loaded)

    def score(model: nn.Module) -> Scores:
        return chat_scores(task, model, loaded)

    judges = f"{task.selection.judge.name}, those to benign prompts by {XSTEST.name}"
    task.say(f"hardened: validation answers to behaviours are judged by {judges}")
    trained = trained_chat(task, "hardened", loaded, task.sampler(), task.objectives(), score, settings_of(task))
    return ChatStage(loaded, trained, summary_of(task, "hardened", trained))


def trained_chat(
    task: ChatTask,
    name: str,
    loaded: LoadedModel,
    sampler: Sampler,
    objectives: Objectives,
    score: Callable[[nn.Module], Scores] | None,
    settings: Settings,
) -> Trained:
    """Trains the loaded model in training/NAME of the output folder, from its newest checkpoint where it resumes."""
    folder = task.output / "training" / slug(name)
    found = resumed_from(task.accelerator, task.config, folder / "checkpoints")
    trainer = Trainer(
        task.accelerator,
        loaded.model,
        sampler,
        objectives,
        settings,
        score,
        folder,
        name=name,
        bar=task.config.tracking.progress,
        averaging=build.averaging(task.config.training, settings.steps),
        carried=carried(task.config, task.hashes),
    )
    return trainer.run(found)


def _benign_answers(task: ChatTask, model: nn.Module, loaded: LoadedModel) -> list[Answer]:
    """What the model says to the benign validation prompts."""
    panel, speech = task.selection, template(task.config.model, loaded).speech
    prompts = [Prompt(n, ids) for n, ids in enumerate(panel.benign["benign"].ids)]
    return answers(model, loaded.tokenizer, prompts, panel.decoding, speech=speech)


def _require_answers(task: ChatTask, loaded: LoadedModel) -> None:
    """Raises ConfigError where the untrained model thinks until every answer of the selection is cut off."""
    if template(task.config.model, loaded).speech.marks is None:
        return
    given = _benign_answers(task, loaded.model.to(task.accelerator.device), loaded)
    if all(answer.status == "thinking" for answer in given):
        raise ConfigError(
            [
                f"selection.max_new_tokens: {task.selection.decoding.max_new_tokens} cuts every answer to a benign "
                "validation prompt off while the model still thinks, so no checkpoint could be chosen. Raise it (and "
                "evaluation.max_new_tokens), or let the model answer at once, where its chat template has a variable "
                "for that, with model.template_variables: {enable_thinking: false}."
            ]
        )


def settings_of(task: ChatTask) -> Settings:
    """How the hardened model is trained."""
    config, training, steps = task.config, task.config.training, task.steps()
    quarter = max(-(-steps // 4), 1)
    held = config.objective.held_steps
    return Settings(
        steps=steps,
        micro_batch_size=training.micro_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_ratio=training.warmup_ratio,
        schedule=training.schedule,
        clip_norm=training.clip_norm,
        log_every=training.log_every,
        evaluate_every=config.selection.every or quarter,
        checkpoint_every=config.checkpoint.every or -(-quarter // held) * held,
        keep_last=config.checkpoint.keep_last,
        liveness_window=training.liveness_window,
        select="robust_best",
        seed=config.seed,
        whole_every=held,
    )


def chat_scores(task: ChatTask, model: nn.Module, loaded: LoadedModel) -> Scores:
    """Benign validation prompts answered; that times validation behaviours unbroken; whether none is answered."""
    panel, speech = task.selection, template(task.config.model, loaded).speech
    found = elicit(
        model,
        loaded.tokenizer,
        panel.behaviours,
        panel.prompts,
        panel.attacks,
        panel.judge,
        panel.decoding,
        speech=speech,
    )
    given = _benign_answers(task, model, loaded)
    thinking = sum(answer.status == "thinking" for answer in given)
    if thinking:
        task.say(
            f"note: {thinking} of {len(given)} answers to benign validation prompts were still thinking after "
            f"selection.max_new_tokens: {panel.decoding.max_new_tokens}, so they count as not answered; raise it"
        )
    answered = share_answered([answer.text for answer in given], XSTEST.refuses).value
    unbroken = 1 - found.worst_case.low.value
    doubt = said_doubt("benign validation prompts", given)
    return Scores(answered, unbroken * answered, answered == 0, doubt)


def summary_of(task: ChatTask, name: str, trained: Trained) -> Training:
    """A hardening as results tell of it."""
    progress, world = trained.progress, task.accelerator.num_processes
    best = progress.best.get("robust_best", {})
    return Training(
        objective=" + ".join(part.name for part in task.config.objective.parts),
        steps=progress.step,
        rows_seen=progress.step * task.config.training.batch_size,
        adversarial_rows=progress.adversarial_rows * world,
        forwards=progress.forwards * world,
        backwards=progress.backwards * world,
        seconds=progress.seconds,
        selected=trained.selected.replace("_", "-"),
        selected_step=trained.selected_step,
        best=best.get("robust"),
        last=progress.best["last"].get("robust"),
        notes=tuple(progress.notes),
        name=name,
    )


def evaluate_chat_model(task: ChatTask, name: str, loaded: LoadedModel) -> Measured:
    """The model on the test rows, by every measure of the panel; answers go to `answers/` in the output folder."""
    if task.panel.base is not None:
        task.panel.base.model.to(task.accelerator.device)
    with within(name), stage("measuring"):
        return evaluate_chat(
            name,
            loaded.model.to(task.accelerator.device),
            template(task.config.model, loaded),
            task.panel,
            key=weights_hash(loaded.model),
            folder=task.output / "answers",
            say=task.say,
        )


@stage("writing and comparing")
def export_chat(task: ChatTask, stage: ChatStage) -> Exported:
    """Writes a trained model for others and compares it with the measured one on validation rows, see `exported`.

    The hardened model goes into the output folder, a baseline into baselines/ there: plain, or plain_equal_cost.
    """
    config = task.config
    beneath = "" if stage.name == "hardened" else f"baselines/{slug(stage.name)}"
    chosen = set(task.selection.behaviours.ids)
    behaviours = [chat for chat in task.streams[Role.ADVERSARIAL].validation if chat.id in chosen]
    useful = task.streams[Role.UTILITY].validation[: config.selection.rows]
    reader = Chats(
        stage.loaded,
        template(config.model, stage.loaded),
        (behaviours, useful),
        config.data.max_length,
        config.training.micro_batch_size,
        config.model.trust_remote_code,
        config.model.quantization is not None,
    )
    return exported(
        task.accelerator, task.output, stage.loaded, stage.trained, reader, name=stage.name, beneath=beneath
    )


@stage("writing the report")
def report_chat(
    task: ChatTask,
    evaluations: Sequence[Measured],
    stages: Sequence[ChatStage] = (),
    *,
    hashes: Mapping[str, str] = MappingProxyType({}),
    exports: Sequence[Exported] = (),
    models: Mapping[str, str] = MappingProxyType({}),
) -> Results:
    """Collects the results and, on the main process, writes results.json, report.md, report.html and the curve.

    stages: the plain fine-tunes, then the hardening. hashes: more of them, by name. exports: what was written of the
    trained models. models: the folder or Hub id of each, by name.
    """
    trained = {f"weights.{one.name}": weights_hash(one.loaded.model) for one in stages}
    facts = facts_of(
        task.config, task.accelerator, {**task.hashes, **hashes, **trained}, task.warnings, exports, models
    )
    checks = [check for written in exports for check in written.checks]
    trainings = [one.summary for one in stages]
    results = chat_results(evaluations, trainings, facts, checks, threat=str(task.threat))
    return written_results(task.accelerator, task.output, results)
