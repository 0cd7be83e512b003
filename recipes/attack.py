"""Attack one model and look: original and adversarial rows side by side.

    python recipes/attack.py recipes/configs/quickstart.yaml --model runs/quickstart/adapter [--rows 5] [key=value ...]

The threat model and the attack are the config's `threat` and the first of `evaluation.attacks` (or --attack NAME).
"""

from __future__ import annotations

import argparse
import sys

from textadv import build
from textadv.config import ConfigError
from textadv.config_file import load_config
from textadv.data import encode
from textadv.errors import USER_ERRORS
from textadv.evaluation import inspect_rows
from textadv.randomness import permutation


def show(path: str, model_name: str, rows: int, attack_name: str | None, overrides: list[str]) -> None:
    """Prints `rows` test rows before and after the attack."""
    config = load_config(path, overrides)
    name = attack_name or next(iter(config.evaluation.attacks))
    if name not in config.evaluation.attacks:
        raise ConfigError([f"--attack {name} is not among evaluation.attacks: {', '.join(config.evaluation.attacks)}."])
    splits = build.splits(config.data, config.seed)
    settings = config.model.model_copy(update={"name": model_name, "lora": None})
    loaded = build.model(settings, splits.labels, config.seed)
    test = encode(splits.test, loaded.tokenizer, config.data.max_length)
    positions = sorted(permutation(config.seed, size=len(test))[:rows])
    threat = build.threat(config.threat).resolved(loaded.model, test.batch(positions))
    attack = build.attack(config.evaluation.attacks[name], threat, config.seed)
    print(f"model:  {model_name}\nthreat: {threat}\nattack: {attack}")
    print("each token: how far it moved, in radii; -> where another token is now the nearest\n")
    found = inspect_rows(
        loaded.model, test, positions, attack, loaded.tokenizer.convert_ids_to_tokens, splits.labels
    )
    for row in found:
        print(f"{row}\n")
    right = sum(row.clean[0] == row.label for row in found)
    print(f"{sum(row.broken for row in found)} of {right} rows that were right are broken")


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file, see recipes/configs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. threat.relative_radius=0.1")
    parser.add_argument("--model", required=True, help="Hub id, model folder or adapter folder")
    parser.add_argument("--rows", type=int, default=5, help="test rows to show")
    parser.add_argument("--attack", help="a key of evaluation.attacks; default: the first")
    arguments = parser.parse_intermixed_args()
    if arguments.rows < 1:
        sys.exit(f"error: --rows must be at least 1, got {arguments.rows}.")
    try:
        show(arguments.config, arguments.model, arguments.rows, arguments.attack, arguments.overrides)
    except USER_ERRORS as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
