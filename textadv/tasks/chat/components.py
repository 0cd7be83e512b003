"""From a chat configuration to objects: streams, attacks, objectives and what is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from textadv.attacks import Adam as AdamAscent
from textadv.attacks import (
    Attack,
    Contrast,
    Elicit,
    GradientAttack,
    Held,
    RefusalDirection,
    StepSize,
    ThreatModel,
)
from textadv.config.adversary import AttackConfig
from textadv.config.chat import (
    ChatDataConfig,
    ChatEvaluationConfig,
    ChatModelConfig,
    ChatRunConfig,
    ChatThreatConfig,
    ClassifierJudgeConfig,
    LlmJudgeConfig,
    StreamConfig,
)
from textadv.config.chat_objective import (
    CapoConfig,
    CatConfig,
    ChatObjectiveConfig,
    LatConfig,
    OverRefusalConfig,
    RefusalDirectionConfig,
)
from textadv.config.text import ConfigError
from textadv.data import ChatRows, ChatSplits, load_chats
from textadv.data.benchmarks import QUESTION_READERS, Question
from textadv.data.characters import Surrogates
from textadv.data.tables import read_files
from textadv.measuring.judges import ChatEndpoint
from textadv.measuring.judges.llm_judge import LlmJudge, LocalModel
from textadv.measuring.judges.prompts import RUBRICS
from textadv.measuring.judges.refusal import load_xstest, prompt_texts
from textadv.measuring.judges.target_judge import TargetJudge
from textadv.measuring.judges.verdicts import REFUSAL_LISTS, ClassifierJudge, Judge
from textadv.models import LoadedModel, Lora, ModelError, load_causal, load_trained_classifier
from textadv.objectives import Objective, Objectives
from textadv.objectives.alignment import (
    REFUSAL,
    RESPONSE,
    SAFE,
    Away,
    Part,
    Supervised,
    Tempted,
    Together,
    Toward,
)
from textadv.tasks import components as build
from textadv.tasks.chat.parts import adversarial_parts, useful_parts
from textadv.training.mixing import Mixing
from textadv.values.batch import Role
from textadv.values.host.phases import stage
from textadv.values.spaces import Embeddings, Hidden, Several, Space

SEARCHING = (CatConfig, CapoConfig, LatConfig)


def stream(config: StreamConfig, role: Role, seed: int, surrogates: Surrogates = "error") -> ChatSplits:
    """One stream, mapped, checked and split."""
    return load_chats(role, seed=seed, surrogates=surrogates, **config.model_dump())


@stage("reading the data")
def streams(config: ChatDataConfig, seed: int) -> dict[Role, ChatSplits]:
    """Every stream, mapped, checked and split."""
    wanted = {Role.ADVERSARIAL: config.adversarial, Role.UTILITY: config.utility}
    if config.borderline is not None:
        wanted[Role.BORDERLINE] = config.borderline
    return {role: stream(part, role, seed, config.surrogates) for role, part in wanted.items()}


@stage("loading the model")
def model(config: ChatModelConfig, seed: int) -> LoadedModel:
    """The chat model with its tokenizer, and its adapters where the configuration asks for them."""
    lora = None if config.lora is None else Lora(**config.lora.model_dump())
    return load_causal(seed=seed, lora=lora, **config.model_dump(exclude={"lora", "template_variables", "think"}))


def threat(config: ChatThreatConfig) -> ThreatModel:
    """What the adversary may do; a relative radius is still to be resolved."""
    space: Space = Embeddings()
    if config.layer is not None:
        space = Hidden(config.layer)
    if config.layers:
        space = Several((Embeddings(), *map(Hidden, config.layers)))
    ball = build.BALLS[config.norm](config.radius, relative_radius=config.relative_radius, per=config.per)
    return ThreatModel(space, ball)


def eliciting(config: ChatRunConfig, threat: ThreatModel, away: float = 0.0) -> Attack:
    """The training attack that makes the harmful target likely. away: weight of making the safe answer unlikely."""
    if config.attack.name == "virtual_adversarial":
        raise ConfigError(
            ["attack.name: virtual_adversarial raises a divergence, and cat, capo and lat elicit the target. Set pgd."]
        )
    if config.attack.goal is not None:
        raise ConfigError(
            [f"attack.goal: {config.attack.goal} is not for cat, capo and lat, which elicit the target. Remove it."]
        )

    def make(one: AttackConfig) -> Attack:
        found = replace(build.attack(one, threat, config.seed), goal=Elicit())  # type: ignore[type-var]
        return Contrast(found, away) if away > 0 and isinstance(found, GradientAttack) else found

    return build.staged(config.attack, make)


def objectives(
    config: ChatRunConfig, threat: ThreatModel, layers: int, adversarial: ChatRows, utility: ChatRows
) -> Objectives:
    """What is minimised on the rows of each role.

    layers: blocks of the model. adversarial, utility: training rows, from which the refusal direction is taken.
    Raises ConfigError where a part does not fit the model or the attack.
    """
    wanted = config.objective
    parts: list[Part] = []
    attack: Attack | None = None
    for part in wanted.parts:
        if isinstance(part, SEARCHING):
            attack = attack or eliciting(config, threat, _adversary_away(wanted))
        if isinstance(part, RefusalDirectionConfig):
            attack = _direction(part, layers, adversarial, utility)
    for part in wanted.parts:
        parts += adversarial_parts(part, config, threat, layers, attack)
    if attack is not None and wanted.defence_steps > 1:
        attack = Held(attack, wanted.defence_steps)
    useful, close = useful_parts(wanted, layers)
    return {
        Role.ADVERSARIAL: Together(tuple(parts), attack),
        Role.UTILITY: Together(tuple(useful)),
        Role.BORDERLINE: _borderline(config, threat, close, adversarial),
        Role.CLEAN: Supervised(1.0, "refusal"),
    }


def _adversary_away(wanted: ChatObjectiveConfig) -> float:
    return next((part.adversary_away for part in wanted.parts if isinstance(part, LatConfig)), 0.0)


def _borderline(config: ChatRunConfig, threat: ThreatModel, parts: list[Part], adversarial: ChatRows) -> Objective:
    """What is trained on borderline rows; with over_refusal on a perturbation that elicits a refusal as well."""
    wanted = next((part for part in config.objective.parts if isinstance(part, OverRefusalConfig)), None)
    if wanted is None:
        return Together(tuple(parts))
    away = Part(Away(wanted.away, wanted.cutoff, wanted.slope, REFUSAL), True)
    toward = Part(Toward(wanted.toward, 0.0, answer=RESPONSE), True)
    attacked = [found for found, weight in ((away, wanted.away), (toward, wanted.toward)) if weight > 0]
    attack = eliciting(config, threat) if attacked else None
    replies = dict.fromkeys(zip(adversarial.opening(SAFE), adversarial.answers[SAFE], strict=True))
    openings, refusals = zip(*replies, strict=True)
    return Tempted(Together((*parts, *attacked), attack, REFUSAL), refusals, openings)


def _direction(part: RefusalDirectionConfig, layers: int, adversarial: ChatRows, utility: ChatRows) -> Attack:
    ablated = tuple(range(int(part.first_layer * layers), layers))
    if not ablated:
        raise ConfigError(
            [f"objective.parts: first_layer {part.first_layer} leaves none of {layers} blocks. Lower it."]
        )
    harmful = adversarial.batch(range(min(part.prompts, len(adversarial))))
    harmless = utility.batch(range(min(part.prompts, len(utility))))
    return RefusalDirection(ablated, harmful, harmless, part.every)


def mixing(config: ChatRunConfig) -> Mixing:
    """How many adversarial rows there are in a step, and at which radius they are attacked."""
    return build.mixing(config.mixing, config.seed)


def measuring_attack(
    settings: AttackConfig, key: str, threat: ThreatModel, seed: int, radius: float | None = None
) -> GradientAttack:
    """The attack that `settings` names, which stand at `key`, at the threat's radius or another one in the same unit.

    Raises ConfigError where it is no gradient attack, or has restarts or a goal of its own.
    """
    found = build.attack(settings, threat, seed)
    if not isinstance(found, GradientAttack):
        raise ConfigError([f"{key}.name must be pgd, fgsm or r_fgsm, got {settings.name}."])
    if settings.restarts > 1 or settings.goal is not None:
        raise ConfigError([f"{key}: leave restarts and goal out: it elicits the target, and every search is answered."])
    if radius is not None:
        own = threat.ball.relative_radius if threat.ball.relative_radius is not None else threat.ball.radius
        assert isinstance(own, float | int)
        scaled = threat.scaled(radius / own)
        if threat.ball.relative_radius is not None:
            scaled = replace(scaled, ball=replace(scaled.ball, relative_radius=radius))
        found = replace(found, threat=scaled)
    return replace(found, goal=Elicit())


def suffix_attack(config: ChatRunConfig, unit: float) -> GradientAttack:
    """The unconstrained attack on suffix slots: Adam with steps of a twentieth of the mean embedding norm.

    unit: the mean norm of the embeddings. The ball has 100 times that radius: far beyond where any step sequence gets.
    """
    steps = config.evaluation.elicitation.suffix_steps
    ball = build.BALLS["l2"](100 * unit, per="token")
    size = StepSize(absolute=unit / 20)
    return GradientAttack(
        ThreatModel(Embeddings(), ball),
        AdamAscent(size),
        steps,
        Elicit(),
        random_start=False,
        select="most_damaging",
        early_stop=True,
        seed=config.seed,
    )


def benign_prompts(name: str, path: str, surrogates: Surrogates = "error") -> tuple[str, ...]:
    """The prompts of a file that a model should answer: of an XSTest file the safe ones, otherwise all.

    Raises DataError where the file has no column `prompt`, or a row of it no text.
    """
    key = f"evaluation.over_refusal.{name}"
    table = read_files([path], None, key)
    if "type" in table.columns:
        return tuple(prompt.text for prompt in load_xstest(path, surrogates) if prompt.safe)
    return tuple(prompt_texts(table, key, surrogates))


def questions(name: str, path: str, surrogates: Surrogates) -> tuple[Question, ...]:
    """The questions of a file, in the format that its name begins with.

    Raises ConfigError where it begins with none, and DataError as the reader does.
    """
    reader = next((found for prefix, found in QUESTION_READERS.items() if name.startswith(prefix)), None)
    if reader is None:
        raise ConfigError(
            [
                f"evaluation.questions.{name}: the name must begin with the format of the file, one of "
                f"{', '.join(QUESTION_READERS)}."
            ]
        )
    return reader(path, surrogates=surrogates)


@stage("loading judges")
def second_judges(config: ChatEvaluationConfig, targets: Mapping[str, str]) -> list[Judge]:
    """The judges that are asked beside the refusal list. targets: what is shown of a behaviour -> its target.

    Raises ConfigError where a judge's model cannot be loaded or used, or its endpoint cannot be asked.
    """
    found: list[Judge] = []
    if config.target_words is not None:
        found.append(TargetJudge(targets, REFUSAL_LISTS[config.judge], config.target_words))
    if config.classifier_judge is not None:
        with _at("evaluation.classifier_judge"):
            found.append(_classifier_judge(config.classifier_judge))
    if config.llm_judge is not None:
        with _at("evaluation.llm_judge"):
            found.append(_llm_judge(config.llm_judge))
    return found


@contextmanager
def _at(key: str) -> Iterator[None]:
    """Inside the block what is wrong with a value or a model is said of `key`."""
    try:
        yield
    except (ModelError, ValueError) as error:
        raise ConfigError([f"{key}: {error}"]) from error


def _classifier_judge(config: ClassifierJudgeConfig) -> ClassifierJudge:
    loaded = load_trained_classifier(config.model)
    return ClassifierJudge(
        loaded.model,
        loaded.tokenizer,
        int(config.harmful) if config.harmful.isdigit() else config.harmful,
        config.model,
        threshold=config.threshold,
        with_prompt=config.with_prompt,
    )


def _llm_judge(config: LlmJudgeConfig) -> LlmJudge:
    rubric = RUBRICS[config.rubric]
    if config.model is not None:
        judging = load_causal(config.model)
        local = LocalModel(judging.model, judging.tokenizer, config.model, rubric.max_new_tokens)
        return LlmJudge(rubric, local, local.identity)
    assert config.endpoint is not None and config.endpoint_model is not None
    if config.key_variable is not None and not os.environ.get(config.key_variable, "").strip():
        raise ValueError(
            f"the environment variable {config.key_variable} (key_variable) is not set. Set it, or key_variable: null "
            "for a server that asks for no key."
        )
    endpoint = ChatEndpoint(
        config.endpoint,
        config.endpoint_model,
        config.key_variable,
        rubric.max_new_tokens,
        timeout_s=config.timeout_seconds,
        retries=config.retries,
    )
    return LlmJudge(rubric, endpoint, endpoint.identity)
