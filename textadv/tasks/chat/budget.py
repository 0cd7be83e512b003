"""The attacks of a run at one budget: searches with the steps that fit, or a sentence that says what would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from textadv.config.types import ConfigError
from textadv.data import ChatRows
from textadv.measuring.safety.adversaries import Adversary, behaviours_of, drawn_alike
from textadv.measuring.safety.budget import Reducible, least_of
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.radius_curve import Curve
from textadv.models import counted_parameters
from textadv.tasks.chat.config import ChatRunConfig
from textadv.values.plurals import some

KEY = "evaluation.elicitation.budget_flops"
Make = Callable[[ChatRunConfig], Mapping[str, Adversary]]
"""The attacks of a configuration, by name."""


@dataclass(frozen=True)
class Budget:
    """What each attack has for a behaviour. flops: floating-point operations; None: no limit, all stay as they are.

    rows: the behaviours. decoding: how they are answered.
    """

    flops: int | None
    config: ChatRunConfig
    model: nn.Module
    rows: ChatRows
    decoding: Decoding

    @classmethod
    def of(cls, config: ChatRunConfig, model: nn.Module, rows: ChatRows, decoding: Decoding) -> Budget:
        """The configured one."""
        wanted = config.evaluation.elicitation.budget_flops
        return cls(None if wanted is None else int(wanted), config, model, rows, decoding)

    def fitted(self, make: Make) -> dict[str, Adversary]:
        """Each attack with as many steps as surely fit for the longest behaviour, at most its own.

        Raises ConfigError where one try of an attack does not fit, or it cannot be told what it takes.
        """
        whole = dict(make(self.config))
        if self.flops is None:
            return whole
        least = {name: self._less(name, attack, 1, make) for name, attack in whole.items()}
        self._require({name: self._most(name, attack) for name, attack in least.items()}, least)
        return {name: self._fitted(name, attack, make) for name, attack in whole.items()}

    def fitted_curve(self, make: Callable[[ChatRunConfig], Curve]) -> Curve:
        """The curve, each of its attacks as `fitted`."""
        return replace(make(self.config), attacks=self.fitted(lambda config: make(config).attacks))

    def _fitted(self, name: str, attack: Adversary, make: Make) -> Adversary:
        assert self.flops is not None
        if self._most(name, attack) <= self.flops:
            return attack
        wanted = self.config.evaluation.elicitation
        fits = 1
        most = attack.effort if isinstance(attack, Reducible) else max(wanted.attack.steps, wanted.suffix_steps)
        while most - fits > 1:
            effort = (fits + most) // 2
            enough = self._most(name, self._less(name, attack, effort, make)) <= self.flops
            fits, most = (effort, most) if enough else (fits, effort)
        return self._less(name, attack, fits, make)

    def _less(self, name: str, attack: Adversary, effort: int, make: Make) -> Adversary:
        """The attack in so many steps or rounds at most; as it is where it has neither."""
        if isinstance(attack, Reducible):
            return attack.reduced(min(effort, attack.effort))
        evaluation = self.config.evaluation
        fewer = {"elicitation": evaluation.elicitation.in_steps(effort), "rewrites": {}}
        config = self.config.model_copy(update={"evaluation": evaluation.model_copy(update=fewer)})
        return make(config).get(name, attack)

    def _most(self, name: str, attack: Adversary) -> int:
        """What one try takes at most, of the behaviour that takes most."""
        least = least_of(attack, self.model, counted_parameters(self.model), behaviours_of(self.rows), self.decoding)
        if least is None:
            raise ConfigError([f"{KEY}: {name} cannot say beforehand what it takes. Leave out one of the two."])
        return max((sum(rounds) for rounds in least.values()), default=0)

    def _require(self, needed: Mapping[str, int], attacks: Mapping[str, Adversary]) -> None:
        assert self.flops is not None
        short = {name: flops for name, flops in needed.items() if flops > self.flops}
        if not short:
            return
        most = max(short, key=lambda name: short[name])
        answers = 1 if drawn_alike(attacks[most]) else self.decoding.samples
        raise ConfigError(
            [
                f"{KEY} must hold one try of every attack on every behaviour, got {self.flops:.3g}, too little for "
                f"{', '.join(short)}: {most} takes up to {_up(short[most])}, its searches in the fewest steps with "
                f"{some(answers, 'answer')} of {self.decoding.max_new_tokens} tokens to each. Set it to "
                f"{_up(short[most])} or more, lower evaluation.max_new_tokens, evaluation.elicitation.restarts"
                f"{' or evaluation.samples' if answers > 1 else ''}, or leave the attack out."
            ]
        )


def _up(flops: int) -> str:
    """Three digits that are no less."""
    digits = max(len(str(flops)) - 3, 0)
    return f"{-(-flops // 10**digits) * 10**digits:.2e}"
