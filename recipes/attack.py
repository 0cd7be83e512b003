"""Attack one model and look: original and adversarial rows side by side.

    python recipes/attack.py recipes/configs/quickstart.yaml --model runs/quickstart/adapter [--rows 5] [key=value ...]

The threat model and the attack are the config's `threat` and the first of `evaluation.attacks` (or --attack NAME); the
rows are among those that recipes/evaluate.py attacks. A relative radius is measured on the model that is attacked.
"""

from __future__ import annotations

import argparse

from textadv import build
from textadv.config import ConfigError
from textadv.config_file import load_config
from textadv.errors import USER_ERRORS, ending
from textadv.evaluation import fitted_temperature, inspect_rows
from textadv.task import encoded, reported_positions, resolved_threat


def show(path: str, model_name: str, count: int, attack_name: str | None, overrides: list[str]) -> None:
    """Prints `count` test rows before and after the attack."""
    config = load_config(path, overrides)
    if count < 1:
        raise ConfigError([f"--rows must be at least 1, got {count}."])
    name = attack_name or next(iter(config.evaluation.attacks))
    if name not in config.evaluation.attacks:
        raise ConfigError([f"--attack {name} is not among evaluation.attacks: {', '.join(config.evaluation.attacks)}."])
    splits = build.splits(config.data, config.seed)
    loaded = build.model(config.model.model_copy(update={"name": model_name, "lora": None}), splits.labels, config.seed)
    train, validation, test = encoded(splits, loaded, config)
    threat = resolved_threat(config, loaded, train)
    attack = build.attack(config.evaluation.attacks[name], threat, config.seed)
    print(f"model:  {model_name}\nthreat: {threat}\nattack: {attack}")
    print("each token: (how far it moved, in radii), -> the token it is now nearest to, where that is another\n")

    def words(ids: list[int]) -> list[str]:
        return [loaded.tokenizer.decode([token]).strip() or "_" for token in ids]

    size = config.evaluation.batch_size
    temperature = fitted_temperature(loaded.model, validation, size) if config.evaluation.calibrate else 1.0
    found = inspect_rows(
        loaded.model,
        test,
        reported_positions(config, len(test))[:count],
        attack,
        threat,
        words,
        splits.labels,
        temperature=temperature,
    )
    for row in found:
        print(f"{row}\n")
    right = sum(row.clean[0] == row.label for row in found)
    print(f"{sum(row.broken for row in found)} of {right} rows that were right are broken ({len(found)} rows shown)")


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file, see recipes/configs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. threat.relative_radius=0.1")
    parser.add_argument("--model", required=True, help="Hub id, model folder or adapter folder")
    parser.add_argument("--rows", type=int, default=5, help="test rows to show (default: 5)")
    parser.add_argument("--attack", metavar="NAME", help="a key of evaluation.attacks (default: the first)")
    arguments = parser.parse_intermixed_args()
    try:
        show(arguments.config, arguments.model, arguments.rows, arguments.attack, arguments.overrides)
    except USER_ERRORS as error:
        raise ending(error) from None


if __name__ == "__main__":
    main()
