"""What a run gets from its launcher: processes, device, precision. What accelerate sets is used, or refused by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, gather_object

from textadv.config.run import RunSection
from textadv.config.types import ConfigError
from textadv.tasks.file import parse_config
from textadv.training.precision import emulation_warning
from textadv.values.host.launcher import launcher_words

PRECISION, DYNAMO = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND"
ACCUMULATION, FSDP = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_USE_FSDP"
# Variable that accelerate launch sets -> the flag behind it.
UNSUPPORTED = {
    "ACCELERATE_USE_DEEPSPEED": "--use_deepspeed",
    "ACCELERATE_USE_MEGATRON_LM": "--use_megatron_lm",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "--use_parallelism_config",
}
ACCUMULATE = ("--gradient_accumulation_steps", "--gradient-accumulation-steps")
FROM_FILE = "or of the file that `accelerate config` wrote"


def launched(config: RunSection) -> tuple[RunSection, Accelerator]:
    """The configuration with the precision that the launcher leaves open or sets, and the accelerator of the run.

    Raises ConfigError where the launcher was told what the configuration contradicts or the run cannot do.
    """
    _require(*_unsupported(os.environ), *_missing_trackers(config))
    resolved = _with_precision(config, _given_precision())
    accelerator = _accelerator(resolved)
    _require(*_misfits(resolved, accelerator), *_sharding_problems(resolved, accelerator))
    return resolved, accelerator


def _require(*problems: str) -> None:
    if problems:
        raise ConfigError(list(problems))


def launch_warnings(config: RunSection, accelerator: Accelerator, training: bool = True) -> Iterable[str]:
    """A sentence for what the launcher or the run leaves out, and for formats that the processor can only imitate.

    training: whether a model is trained; saved models are measured in their own format.
    """
    # accelerate launch says where processes meet where it was asked for several, whether or not it starts them.
    several = PRECISION in os.environ and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ
    if several and accelerator.num_processes == 1:
        instead = f"`torchrun --nproc_per_node 2 {sys.argv[0]} ...` starts two"
        if accelerator.device.type != "cpu":
            instead = "it starts one for each accelerator"
        yield (
            "accelerate launch --num_processes: one process runs, though more were asked for, because accelerate does "
            f"not find an accelerator for each; {instead}. The numbers are those of one process."
        )
    if not training and _given_precision() != "no":
        yield (
            f"accelerate launch --mixed_precision {_given_precision()} is for training, and here nothing is trained: "
            f"models are measured in model.dtype: {config.model.dtype}."
        )
    formats: dict[str, str] = {"model.dtype": config.model.dtype}
    if training:
        formats["training.precision"] = config.training.precision or "no"
    found = (emulation_warning(key, value, accelerator.device) for key, value in formats.items())
    yield from (line for line in found if line is not None)


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """A block that no process leaves where another could not: what one meets alone ends all of them.

    So that none waits for a process that is gone. Raises ConfigError, naming the process, in those that met nothing.
    """
    try:
        yield
    except Exception as error:
        gather_object([str(error) or type(error).__name__])
        raise
    met = [(rank, told) for rank, told in enumerate(gather_object([None])) if told is not None]
    if met:
        raise ConfigError([f"process {rank} cannot go on: {told}" for rank, told in met])


def accumulation_of(environment: Mapping[str, str], words: Sequence[str]) -> str:
    """The launcher's accumulation: what it set, or was told and tells nobody, as it does without DeepSpeed."""
    own = words[: next((place for place, word in enumerate(words) if word.endswith(".py")), len(words))]
    told = [word for flag in own for word in flag.split("=", 1)]
    given = [told[place + 1] for place, word in enumerate(told[:-1]) if word in ACCUMULATE]
    return environment.get(ACCUMULATION) or (given[-1] if given else "1")


def _given_precision() -> str:
    return (os.environ.get(PRECISION) or "no").lower()


def _set(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in ("true", "1", "yes", "on")


def _unsupported(environment: Mapping[str, str]) -> Iterator[str]:
    """What the launcher was told that no run can do, one line each."""
    for name, flag in UNSUPPORTED.items():
        if _set(environment, name):
            yield f"accelerate launch {flag} is not supported ({name} is set). Take it out of the command, {FROM_FILE}."
    dynamo = environment.get(DYNAMO, "no")
    if dynamo.lower() not in ("", "no"):
        yield (
            f"accelerate launch --dynamo_backend {dynamo.lower()} is not supported: a compiled model would lose its "
            f"perturbation. Take it out of the command, {FROM_FILE}."
        )
    steps = accumulation_of(environment, launcher_words())
    if steps != "1":
        yield (
            f"accelerate's gradient_accumulation_steps must be 1, got {steps}: training.batch_size and "
            "training.micro_batch_size say how much is accumulated."
        )


def _missing_trackers(config: RunSection) -> Iterator[str]:
    absent = [name for name in config.tracking.log_with if name not in map(str, get_available_trackers())]
    if absent:
        yield f"tracking.log_with: {', '.join(absent)} cannot be imported. Install it, or leave it out."


def _with_precision(config: RunSection, given: str) -> RunSection:
    """The configuration with `given`, the launcher's precision, where it has none of its own.

    accelerate launch says `no` unless it is told otherwise, so that `no` contradicts nothing.
    """
    own = config.training.precision
    if own is not None and given not in ("no", own):
        raise ConfigError(
            [
                f"training.precision: {own} and accelerate launch --mixed_precision {given} contradict one another. "
                "Take one of them out; the second may stand in the file that `accelerate config` wrote."
            ]
        )
    if own is not None:
        return config
    if given not in ("no", "bf16", "fp16"):
        raise ConfigError(
            [f"accelerate launch --mixed_precision {given} is not supported. Choose no, bf16 or fp16 {FROM_FILE}."]
        )
    return parse_config(config.model_dump(), [f"training.precision={given}"])


def _accelerator(config: RunSection) -> Accelerator:
    precision = config.training.precision
    try:
        return Accelerator(
            # On a machine without an accelerator, several processes join only where accelerate is told so.
            cpu=not torch.accelerator.is_available(),
            mixed_precision=precision,
            log_with=list(config.tracking.log_with) or None,
            project_dir=str(Path(config.output) / "trackers"),
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
    except (ImportError, RuntimeError, ValueError) as error:
        line = f"training.precision: {precision} cannot be used on this machine: {error} Set training.precision: no."
        if precision == "no":
            line = f"accelerate cannot start here: {error} Launch with `accelerate launch`, or with `torchrun`."
        raise ConfigError([line]) from error


def _misfits(config: RunSection, accelerator: Accelerator) -> Iterator[str]:
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        yield (
            f"WORLD_SIZE says {started} processes and accelerate joined {accelerator.num_processes}: each would train "
            "a model of its own. Launch with `accelerate launch`, or with `torchrun`."
        )
    if config.training.precision == "fp16" and accelerator.device.type == "cpu":
        yield "training.precision: fp16 needs a GPU, accelerate would leave it out here. Set bf16 or no."
    if config.training.batch_size % accelerator.num_processes:
        yield (
            f"training.batch_size must be divisible by the {accelerator.num_processes} processes, got "
            f"{config.training.batch_size}."
        )


def _sharding_problems(config: RunSection, accelerator: Accelerator) -> Iterator[str]:
    sharded = accelerator.distributed_type is DistributedType.FSDP
    if _set(os.environ, FSDP) and not sharded:
        yield (
            "accelerate launch --use_fsdp shards a model over several accelerators, which are not here. Take it out of "
            f"the command, {FROM_FILE}."
        )
    if sharded and os.environ.get("FSDP_VERSION", "1") != "2":
        yield "accelerate launch --use_fsdp needs --fsdp_version 2: the first version is not supported."
    if sharded and config.attack.early_stop:
        yield "attack.early_stop: true makes processes run different numbers of passes, which FSDP cannot do."
