"""The output folder of a run: free of another run, and marked until its report is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from accelerate import Accelerator

from textadv.config import ConfigError
from textadv.config_file import config_difference, dump_config, load_config
from textadv.config_tasks import AnyRunConfig
from textadv.task_launch import together

CONFIG_FILE, HASHES_FILE, MARK = "config.yaml", "hashes.json", ".unfinished"


def free_output(config: AnyRunConfig) -> Path:
    """The output folder: writable, and free of a run with another configuration or of one that can be resumed.

    Raises ConfigError otherwise, or where there is nothing to resume.
    """
    output = Path(config.output)
    saved = output / CONFIG_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError([f"output {config.output} cannot be written: {error}. Name another folder."]) from error
    if not saved.is_file():
        if config.checkpoint.resume:
            raise ConfigError([f"checkpoint.resume: true, and {output} holds no run. Set checkpoint.resume: false."])
        return output
    differences = "; ".join(config_difference(load_config(saved), config))
    if differences and config.checkpoint.resume:
        raise ConfigError(
            [
                f"checkpoint.resume: true needs the configuration that {output} was written with. These differ: "
                f"{differences}. Undo them, or start anew in another output folder."
            ]
        )
    if differences:
        raise ConfigError(
            [
                f"output {output} holds a run with another configuration ({differences}). Name another output folder, "
                "or remove that one, so that nothing is lost by accident."
            ]
        )
    kept = sorted(path.name for path in output.glob("training/*/checkpoints/step-*"))
    if kept and (output / MARK).exists() and not config.checkpoint.resume:
        raise ConfigError(
            [
                f"output {output} holds this run, interrupted, with checkpoints up to {kept[-1]}; starting anew would "
                "remove them. Set checkpoint.resume=true to go on from there, or remove the folder."
            ]
        )
    return output


def claim(
    config: AnyRunConfig,
    accelerator: Accelerator,
    output: Path,
    hashes: Mapping[str, str],
    explain: Callable[[Sequence[str]], str] = lambda changed: "",
) -> None:
    """Writes the resolved configuration and the hashes into the output folder, marks it, and starts the trackers.

    hashes: of the data and of what the run starts from. Raises ConfigError where a run is resumed with others; explain:
    says of the names of those why they changed and what to do, where more is known than to put them back.
    """
    saved = output / HASHES_FILE
    with together(accelerator):
        if config.checkpoint.resume and saved.is_file():
            _require_unchanged(output, json.loads(saved.read_text(encoding="utf-8")), hashes, explain)
    if accelerator.is_main_process:
        (output / MARK).touch()
        (output / CONFIG_FILE).write_text(dump_config(config), encoding="utf-8")
        saved.write_text(json.dumps(dict(hashes), indent=2) + "\n", encoding="utf-8")
    if config.tracking.log_with:
        accelerator.init_trackers(config.tracking.project)


def _require_unchanged(
    output: Path, before: Mapping[str, str], hashes: Mapping[str, str], explain: Callable[[Sequence[str]], str]
) -> None:
    changed = sorted(name for name in {*before, *hashes} if before.get(name) != hashes.get(name))
    if changed:
        remedy = explain(changed) or "Put them back, or start anew in another output folder."
        raise ConfigError(
            [
                f"checkpoint.resume: true needs what {output} was started with. These have changed since: "
                f"{', '.join(changed)}. {remedy}"
            ]
        )


def finish(output: Path) -> None:
    """Takes the mark off: the report is written."""
    (output / MARK).unlink(missing_ok=True)
