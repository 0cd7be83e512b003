"""From the parts of a chat model's objective to what trains on adversarial and on useful rows."""

from __future__ import annotations

import math

from textadv.attacks import Attack, GradientAttack, ThreatModel
from textadv.config.chat import ChatRunConfig
from textadv.config.chat_objective import (
    CapoConfig,
    CatConfig,
    ChatObjectiveConfig,
    FreelbPartConfig,
    KlConfig,
    LatConfig,
    OverRefusalConfig,
    PrefillRecoveryConfig,
    RefusalDirectionConfig,
    ReroutingConfig,
    SupervisedPartConfig,
    TradesPartConfig,
)
from textadv.config.text import ConfigError
from textadv.objectives import Adversarial, FreeLB, Objective, trades
from textadv.objectives.alignment import (
    HARMFUL,
    SAFE,
    Away,
    KlToBase,
    Part,
    Preference,
    PrefillRecovery,
    Supervised,
    Toward,
)
from textadv.objectives.rerouting import Reroute, Retain
from textadv.objectives.token_means import OverTokens
from textadv.tasks import components as build


def _untargeted(config: ChatRunConfig, threat: ThreatModel, default_goal: str = "cross_entropy") -> Attack:
    """The training attack on the safe answer itself."""
    return build.attack(config.attack, threat, config.seed, default_goal)


def _middle_layers(layers: int) -> tuple[int, ...]:
    """Blocks at a third and at two thirds of the depth, as 10 and 20 of 32."""
    return tuple(dict.fromkeys((layers // 3, 2 * layers // 3)))


def adversarial_parts(
    part: object, config: ChatRunConfig, threat: ThreatModel, layers: int, attack: Attack | None
) -> list[Part]:
    """What one part of the configuration trains on adversarial rows."""
    if isinstance(part, CatConfig | LatConfig):
        away = _meant(Away(part.away, part.cutoff, part.slope, form=part.away_form), part.mean, HARMFUL)
        toward = _meant(Toward(part.toward, part.floor, part.slope), part.mean, SAFE)
        return [Part(found, True) for found, weight in ((away, part.away), (toward, part.toward)) if weight > 0]
    if isinstance(part, CapoConfig):
        cutoff, floor = math.inf if part.cutoff is None else part.cutoff, part.floor or 0.0
        return [Part(Preference(part.form, part.beta, part.weight, cutoff, floor), True)]
    if isinstance(part, RefusalDirectionConfig):
        return [Part(Toward(part.weight, floor=0.0), True)]
    if isinstance(part, PrefillRecoveryConfig):
        if part.perturbed and attack is None:
            raise ConfigError(
                ["objective.parts: prefill_recovery with perturbed: true needs a part that attacks, such as cat."]
            )
        return [Part(PrefillRecovery(part.weight, part.shortest, part.longest, config.seed), part.perturbed)]
    if isinstance(part, ReroutingConfig):
        chosen = _middle_layers(layers) if part.layers is None else tuple(part.layers)
        if not chosen or max(chosen) >= layers:
            raise ConfigError([f"objective.parts: rerouting.layers must name blocks 0 to {layers - 1}, got {chosen}."])
        return [Part(_meant(Reroute(chosen, part.alpha), part.mean, HARMFUL, whole=True))]
    if isinstance(part, SupervisedPartConfig):
        return [Part(Supervised(part.weight, "refusal"))]
    if isinstance(part, KlConfig | OverRefusalConfig):
        return []
    return [Part(_own_attack(part, config, threat))]


def _meant(objective: Objective, mean: str, answer: str | None, whole: bool = False) -> Objective:
    """The objective with the mean that the configuration names: over rows, or over the tokens of this answer."""
    return OverTokens(objective, answer, whole) if mean == "token" else objective


def _own_attack(part: object, config: ChatRunConfig, threat: ThreatModel) -> Objective:
    if isinstance(part, TradesPartConfig):
        return trades(_untargeted(config, threat, "kl"), part.beta)
    if isinstance(part, FreelbPartConfig):
        climbing = _untargeted(config, threat)
        if not isinstance(climbing, GradientAttack):
            raise ConfigError(["objective.parts: freelb climbs by itself. Set attack.name: pgd."])
        return FreeLB(
            climbing,
            part.start,
            hold_dropout=part.hold_dropout,
            special_tokens=part.special_tokens,
            largest_entry=part.linf_step == "largest_entry",
        )
    return Adversarial(_untargeted(config, threat))


def useful_parts(wanted: ChatObjectiveConfig, layers: int) -> tuple[list[Part], list[Part]]:
    """What is trained on utility and on borderline rows, alike. Raises ConfigError where that is nothing."""
    if not _useful(wanted, layers):
        raise ConfigError(
            ["objective.utility: 0 leaves nothing to train on utility rows. Raise it, or add {name: kl} to the parts."]
        )
    return _useful(wanted, layers), _useful(wanted, layers)


def _useful(wanted: ChatObjectiveConfig, layers: int) -> list[Part]:
    found: list[Part] = []
    if wanted.utility > 0:
        found.append(Part(Supervised(wanted.utility)))
    for part in wanted.parts:
        if isinstance(part, KlConfig):
            found.append(Part(KlToBase(part.weight, part.scale_free, part.direction == "model_to_base")))
        if isinstance(part, ReroutingConfig):
            kept = tuple(range(layers)) if part.retain == "blocks" else None
            found.append(Part(_meant(Retain(kept, part.alpha), part.mean, None, whole=True)))
    return found
