"""A run made ready: its task, in an output folder of its own, before anything expensive."""

from __future__ import annotations

from functools import partial

from textadv.config.run import RunSection
from textadv.runs.launch import launch_warnings, launched
from textadv.runs.output import claim, claiming, free_output, require_room
from textadv.tasks.protocol import Run, Task
from textadv.tasks.registry import ready
from textadv.values.host.phases import stage


@stage("making ready")
def prepare(config: RunSection, *, training: bool = True) -> Task:
    """The task of a configuration, ready in all its processes, once the output folder is claimed.

    training: whether the model will be trained. Raises ConfigError, DataError or ModelError, each saying what to
    change; nothing is then left behind.
    """
    config, accelerator = launched(config)
    with claiming(accelerator, config, training=training) as config:
        output = free_output(config, training=training)
        notes = tuple(launch_warnings(config, accelerator, training))
        room = partial(require_room, config, output, training=training)
        task = ready(config, Run(accelerator, output, training, room, notes))
    claim(config, accelerator, output, task.hashes, task.explain)
    return task
