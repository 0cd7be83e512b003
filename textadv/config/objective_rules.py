"""What objectives do not allow in the sections of attack, threat and mixing, one line each."""

from __future__ import annotations

from typing import Protocol

from textadv.config.adversary import AttackConfig, ThreatConfig
from textadv.config.mixing import MixingConfig


def divergence_problems(name: str, attack: AttackConfig) -> list[str]:
    """A divergence from the clean prediction is flat at the clean input."""
    if attack.goal is not None or attack.random_start:
        return []
    return [
        f"objective.name: {name} raises a divergence, which has a zero gradient at the clean input, where this "
        f"attack starts. Set attack.name: pgd with attack.random_start: true, or attack.goal: cross_entropy."
    ]


class FreelbSteps(Protocol):
    """The keys of FreeLB that depend on the threat, in a classifier's objective and in a chat model's part."""

    @property
    def special_tokens(self) -> bool: ...

    @property
    def linf_step(self) -> str: ...


def freelb_problems(objective: FreelbSteps, attack: AttackConfig, space: str, norm: str) -> list[str]:
    """What FreeLB's options do not allow in attack and threat, one line each."""
    lines = []
    if objective.special_tokens and space == "pixels":
        lines.append("objective.special_tokens: true has no meaning for threat.space: pixels. Remove it.")
    if objective.linf_step != "sign" and not (norm == "linf" and attack.ascent == "fixed"):
        lines.append(
            f"objective.linf_step: {objective.linf_step} needs threat.norm: linf and attack.ascent: fixed, got {norm} "
            f"and {attack.ascent}. Remove it."
        )
    return lines


def ascending_problems(name: str, attack: AttackConfig, mixing: MixingConfig) -> list[str]:
    """What FreeLB and free training, which train on every step of the attack, do not allow in the attack."""
    if attack.name != "pgd":
        return [f"objective.name: {name} needs attack.name: pgd, got {attack.name}. Set attack.name: pgd."]
    lines = _plain_search_problems(name, attack)
    if attack.goal not in (None, "cross_entropy"):
        lines.append(
            f"attack.goal must be cross_entropy with objective.name: {name}, whose ascent uses the gradient of the "
            f"training loss, got {attack.goal}. Remove it."
        )
    if not attack.random_start:
        lines.append(
            f"attack.random_start must be true with objective.name: {name}, got false."
            + (" To start at the clean input set objective.start: 0." if name == "freelb" else "")
        )
    if attack.steps_schedule is not None:
        lines.append(f"attack.steps_schedule does not go with objective.name: {name}. Set attack.steps instead.")
    if mixing.adaptive_radius is not None:
        lines.append(f"mixing.adaptive_radius does not go with objective.name: {name}. Remove it.")
    return lines


def _plain_search_problems(name: str, attack: AttackConfig) -> list[str]:
    """What an objective whose search is one run to the last point does not allow."""
    lines = []
    if attack.restarts != 1:
        lines.append(f"attack.restarts must be 1 with objective.name: {name}, got {attack.restarts}.")
    if attack.early_stop:
        lines.append(f"attack.early_stop must be false with objective.name: {name}, got true.")
    if attack.select != "last":
        lines.append(f"attack.select must be last with objective.name: {name}, got {attack.select}.")
    if attack.starts != "ball":
        lines.append(f"attack.starts must be ball with objective.name: {name}, got {attack.starts}.")
    return lines


def distributional_problems(attack: AttackConfig, threat: ThreatConfig) -> list[str]:
    """What the penalised ascent, which has no ball, does not use."""
    if attack.name != "pgd":
        return [f"objective.name: distributional needs attack.name: pgd, got {attack.name}. Set attack.name: pgd."]
    lines = _plain_search_problems("distributional", attack)
    if threat.norm != "l2":
        lines.append(f"objective.name: distributional prices the L2 norm, got threat.norm: {threat.norm}. Set l2.")
    if attack.step_size is not None or (attack.relative_step_size or 1.0) > 1:
        lines.append(
            "objective.name: distributional takes steps that are shares of the way to the penalty's optimum: remove "
            f"attack.step_size (got {attack.step_size}) and keep attack.relative_step_size at most 1 (got "
            f"{attack.relative_step_size}); null means 1."
        )
    if attack.ascent != "fixed":
        lines.append(f"attack.ascent must be fixed with objective.name: distributional, got {attack.ascent}.")
    return lines


def predictor_problems(mixing: MixingConfig) -> list[str]:
    """Every optimizer step must reach the predictor: processes wait for the gradient of each parameter."""
    lowest = mixing.lowest_ratio
    if mixing.warmup_steps == 0 and lowest > 0:
        return []
    return [
        f"objective.name: predictor needs attacked rows in every optimizer step, got mixing.warmup_steps: "
        f"{mixing.warmup_steps} and a lowest ratio of {lowest}. Set mixing.warmup_steps: 0 and raise the ratio."
    ]
