"""What a launched process finds: prints each warning of the launch; where told so, process 1 alone meets a mistake."""

from __future__ import annotations

import sys

from textadv.config.types import ConfigError
from textadv.runs.errors import USER_ERRORS, ending
from textadv.runs.launch import launch_warnings, launched, together
from textadv.tasks.file import load_config


def main() -> None:
    try:
        config, accelerator = launched(load_config("tests/recipes/small.yaml"))
        with together(accelerator):
            if sys.argv[1:] == ["alone"] and accelerator.process_index == 1:
                raise ConfigError(["data.train: files/mine.csv is missing."])
        accelerator.wait_for_everyone()
    except USER_ERRORS as error:
        raise ending(error) from None
    for line in launch_warnings(config, accelerator):
        accelerator.print(f"{accelerator.num_processes} processes, {config.training.precision}: {line}")


if __name__ == "__main__":
    main()
