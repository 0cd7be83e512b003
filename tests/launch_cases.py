"""What a launched process finds, in a module of few imports, for each launch pays for them."""

from __future__ import annotations

from textadv.config.types import ConfigError
from textadv.runs.errors import USER_ERRORS, ending
from textadv.runs.launch import launch_warnings, launched, together
from textadv.tasks.file import load_config


def met(*words: str) -> None:
    """What a launched process finds: prints each warning of the launch; told "alone", process 1 meets a mistake."""
    try:
        config, accelerator = launched(load_config("tests/recipes/small.yaml"))
        with together(accelerator):
            if words == ("alone",) and accelerator.process_index == 1:
                raise ConfigError(["data.train: files/mine.csv is missing."])
        accelerator.wait_for_everyone()
    except USER_ERRORS as error:
        raise ending(error) from None
    for line in launch_warnings(config, accelerator):
        accelerator.print(f"{accelerator.num_processes} processes, {config.training.precision}: {line}")
