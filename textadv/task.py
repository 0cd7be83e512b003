"""One run, ready to go: everything that can be wrong with its input is found here, before anything expensive."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import nn

from textadv import build
from textadv.attacks import GradientAttack, ThreatModel, reach_warning
from textadv.config import ConfigError, RunConfig
from textadv.config_file import config_difference, dump_config, load_config
from textadv.data import EncodedRows, Examples, Splits, encode, overlap
from textadv.models import LoadedModel
from textadv.randomness import permutation

SELECTION_DRAW, TEST_DRAW, THREAT_ROWS = 11, 12, 256
CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class Task:
    """What every stage of a run shares.

    train, validation, test: tokenised rows. selection: positions in `validation` that choose the checkpoint. tested:
    positions in `test` that are reported. threat: with an absolute radius. warnings: sentences for the report.
    """

    config: RunConfig
    accelerator: Accelerator
    output: Path
    splits: Splits
    train: EncodedRows
    validation: EncodedRows
    test: EncodedRows
    selection: tuple[int, ...]
    tested: tuple[int, ...]
    threat: ThreatModel
    hashes: dict[str, str]
    new_weights: tuple[str, ...]
    warnings: tuple[str, ...]

    def load_model(self) -> LoadedModel:
        """The untrained model, the same weights each time."""
        return build.model(self.config.model, self.splits.labels, self.config.seed)

    def say(self, line: str) -> None:
        """Prints a line on the main process."""
        self.accelerator.print(line)


def prepare(config: RunConfig) -> Task:
    """Reads, checks and tokenises the data, loads the model once, resolves the radius, and claims the output folder.

    Raises ConfigError, DataError or ModelError, each saying what to change.
    """
    if config.threat.space == "pixels":
        raise ConfigError(["threat.space: pixels needs images and data holds texts. Set threat.space: embeddings."])
    accelerator = _accelerator(config)
    output = _claimed(config, accelerator)
    splits = build.splits(config.data, config.seed)
    loaded = build.model(config.model, splits.labels, config.seed)
    parts = (splits.train, splits.validation, splits.test)
    train, validation, test = (encode(part, loaded.tokenizer, config.data.max_length) for part in parts)
    if len(train) < config.training.batch_size:
        raise ConfigError(
            [f"training.batch_size must be at most the {len(train)} training rows, got {config.training.batch_size}."]
        )
    sample = train.batch(range(min(len(train), THREAT_ROWS))).to(next(loaded.model.parameters()).device)
    threat = build.threat(config.threat).resolved(loaded.model, sample)
    return Task(
        config=config,
        accelerator=accelerator,
        output=output,
        splits=splits,
        train=train,
        validation=validation,
        test=test,
        selection=_drawn(config, SELECTION_DRAW, len(validation), config.selection.rows),
        tested=_drawn(config, TEST_DRAW, len(test), config.evaluation.rows),
        threat=threat,
        hashes=_hashes(splits, loaded),
        new_weights=loaded.initialised,
        warnings=tuple(_warnings(config, splits, threat, train)),
    )


def _accelerator(config: RunConfig) -> Accelerator:
    output = Path(config.output)
    accelerator = Accelerator(
        mixed_precision=config.training.precision,
        log_with=list(config.tracking.log_with) or None,
        project_dir=str(output / "trackers"),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    if accelerator.distributed_type is DistributedType.FSDP and config.attack.early_stop:
        raise ConfigError(
            ["attack.early_stop: true makes processes run different numbers of passes, which FSDP cannot do."]
        )
    if config.training.batch_size % accelerator.num_processes:
        raise ConfigError(
            [
                f"training.batch_size must be divisible by the {accelerator.num_processes} processes, got "
                f"{config.training.batch_size}."
            ]
        )
    if config.tracking.log_with:
        accelerator.init_trackers(config.tracking.project)
    return accelerator


def _claimed(config: RunConfig, accelerator: Accelerator) -> Path:
    """The output folder, writable, and free of a run with another configuration; the resolved config is written."""
    output = Path(config.output)
    saved = output / CONFIG_FILE
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError([f"output {config.output} cannot be written: {error}. Name another folder."]) from error
    if saved.is_file():
        differences = config_difference(load_config(saved), config)
        if differences and config.checkpoint.resume:
            raise ConfigError(
                [
                    f"checkpoint.resume: true needs the configuration that {output} was written with. These differ: "
                    f"{'; '.join(differences)}. Undo them, or start anew in another output folder."
                ]
            )
        if differences:
            raise ConfigError(
                [
                    f"output {output} holds a run with another configuration ({'; '.join(differences)}). Name another "
                    "output folder, or remove that one, so that nothing is lost by accident."
                ]
            )
    elif config.checkpoint.resume:
        raise ConfigError([f"checkpoint.resume: true, and {output} holds no run. Set checkpoint.resume: false."])
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        saved.write_text(dump_config(config), encoding="utf-8")
    return output


def _drawn(config: RunConfig, draw: int, size: int, wanted: int | None) -> tuple[int, ...]:
    """Positions of a seeded subset, in order."""
    return tuple(sorted(permutation(config.seed, draw, size=size)[:wanted]))


def _hashes(splits: Splits, loaded: LoadedModel) -> dict[str, str]:
    """SHA-256 of each split's rows, of the tokenizer and of the weights that the run starts from."""
    found = {f"data.{name}": _digest([_rows_text(part)]) for name, part in _named(splits)}
    found["tokenizer"] = _digest([json.dumps(sorted(loaded.tokenizer.get_vocab().items())).encode()])
    found["initial weights"] = _digest(_weight_bytes(loaded.model))
    return found


def _named(splits: Splits) -> list[tuple[str, Examples]]:
    return [("train", splits.train), ("validation", splits.validation), ("test", splits.test)]


def _rows_text(part: Examples) -> bytes:
    return json.dumps([part.texts, part.pairs, part.labels, part.ids]).encode()


def _weight_bytes(model: nn.Module) -> Iterable[bytes]:
    for name, value in sorted(model.state_dict().items()):
        yield name.encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _warnings(config: RunConfig, splits: Splits, threat: ThreatModel, train: EncodedRows) -> Iterable[str]:
    """What a reader must know before trusting a number."""
    if config.objective.name != "clean":
        adversary = build.attack(config.attack, threat, config.seed)
        short = reach_warning(adversary) if isinstance(adversary, GradientAttack) else None
        if short is not None:
            yield short
    for name, part in _named(splits)[1:]:
        shared = overlap(splits.train, part)
        if shared:
            yield f"data: {shared} of {len(part)} {name} rows have a text that also stands in train."
    if train.uneditable:
        yield f"data: {train.uneditable} training rows have no token that an attack may touch."
