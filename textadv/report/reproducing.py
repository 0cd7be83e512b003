"""How a run is repeated: its configuration, the command, and the versions, seeds and hashes to compare."""

from __future__ import annotations

import re
import shlex

from textadv.measuring.results import Results
from textadv.values.host.yaml_text import write_yaml


def config_yaml(results: Results) -> str:
    """The resolved configuration as YAML, ready to be run again."""
    return write_yaml(results.config).rstrip()


def facts(results: Results) -> dict[str, str]:
    """Version, seeds, models, environment and hashes, by what they are called."""
    return {
        "textadv": results.textadv_version,
        "created": results.created,
        **{f"seed, {name}": str(seed) for name, seed in results.seeds.items()},
        **{f"model, {name}": path for name, path in results.models.items() if name != path},
        **results.environment,
        **{f"hash, {name}": value for name, value in results.hashes.items()},
    }


def command(results: Results) -> str:
    """What repeats the run: a training, or the evaluation of saved models."""
    if results.trainings:
        return "accelerate launch --quiet recipes/adv_finetune.py run.yaml"
    named = " ".join(f"--model {shlex.quote(_argument(results, found.name))}" for found in results.evaluations)
    return f"accelerate launch --quiet recipes/evaluate.py run.yaml {named} --output OUTPUT"


def _argument(results: Results, name: str) -> str:
    """How a model was given to the recipe; MODEL where that could mean more than a name and a path."""
    path = results.models.get(name, name)
    given = path if path == name else f"{name}={path}"
    return given if re.fullmatch(r"[\w.,/:@+= ()-]+", given) else "MODEL"
