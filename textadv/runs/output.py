"""The output folder of a run: free of another run, locked, and marked until its report is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from textadv.config.objective import teaches
from textadv.config.run import RunSection
from textadv.config.types import ConfigError
from textadv.runs.launch import together
from textadv.runs.lock import claimed, locked, unlocked
from textadv.runs.reads import require_outside
from textadv.tasks.file import config_difference, dump_config, written_config
from textadv.tasks.protocol import say
from textadv.training import checkpoint as checkpoints
from textadv.values.descriptions import SETTINGS
from textadv.values.errors import WriteError
from textadv.values.host.reading import json_of
from textadv.values.host.writing import discard, free_bytes, in_bytes, require_writable, sweep, undone, write_bytes
from textadv.values.plurals import some

OF_SETTINGS = "Settings are what config.json and adapter_config.json say, as this transformers and peft read them."
CONFIG_FILE, HASHES_FILE, MARK = "config.yaml", "hashes.json", ".unfinished"
# What a run leaves, in the order in which it is removed: what says which run it is goes last.
RUN_PARTS = (
    "training",
    "baselines",
    "adapters",
    "adapter",
    "merged",
    "answers",
    "evaluated",
    "adversarial",
    "results.json",
    "report.md",
    "report.html",
    "curve.svg",
    HASHES_FILE,
    MARK,
    CONFIG_FILE,
)
# Logs, reports, tokenizers, answers: small beside weights.
REPORTS = 1_000_000


@contextmanager
def claiming(accelerator: Accelerator, config: RunSection, *, training: bool = True) -> Iterator[RunSection]:
    """A block that makes a run ready, its output folder locked; where it fails, on any process, the lock goes again,
    and so do folders that were made for it.

    It is given the configuration to go on with: a finished run that is started again with weights of its own in the
    folder is resumed, which trains nothing and loses nothing.
    """
    output = Path(config.output)
    with undone(output):
        try:
            with together(accelerator):
                if accelerator.is_main_process:
                    _require_writable(output)
                    locked(output)
                yield _taken_up(config, output, partial(say, accelerator)) if training else config
        except BaseException:
            unlocked(output, begun=False)
            raise


def _taken_up(config: RunSection, output: Path, say: Callable[[str], None]) -> RunSection:
    """See `claiming`."""
    wanted = config.checkpoint
    if wanted.resume or wanted.overwrite or (output / MARK).exists() or not checkpoints.trained_parts(output):
        return config
    known = begun(output).config
    if known is None or _differences(known, config):
        return config
    say(
        f"note: output {output} holds this run, finished: its training is taken from there. Set "
        f"checkpoint.overwrite=true to train anew, which removes {_going(output)}."
    )
    return config.model_copy(update={"checkpoint": wanted.model_copy(update={"resume": True})})


def _require_writable(output: Path) -> None:
    try:
        require_writable(output)
    except WriteError as error:
        why = str(error).partition(": ")[2]
        raise ConfigError([f"output {output} cannot be written: {why} Name another folder."]) from error


@dataclass(frozen=True)
class Begun:
    """What an output folder says about the run that it holds.

    config, hashes: the files that tell it: in the newest checkpoint, which knows them by their checksums, or else in
    the folder itself; None where they are missing or damaged. told: what is wrong with the folder's own.
    """

    config: Path | None
    hashes: Path | None
    told: tuple[str, ...]


def begun(output: Path) -> Begun:
    """See `Begun`."""
    found: list[Path | None] = []
    told = []
    for name, whole, same in ((CONFIG_FILE, _is_config, _same_config), (HASHES_FILE, _is_hashes, _same_bytes)):
        path, known = output / name, _carried(output, name)
        source = path if path.is_file() and whole(path) else None
        # One of them agrees with the folder's own: others are of another run.
        if known and (source is None or not any(same(source, other) for other in known)):
            told.append(f"{path} was not as this run wrote it, and is as the newest checkpoint holds it")
            source = known[0]
        elif source is None and path.is_file():
            told.append(f"{path} was empty or damaged, and is written anew")
        found.append(source)
    return Begun(found[0], found[1], tuple(told))


def _carried(output: Path, name: str) -> list[Path]:
    """That file in each checkpoint that holds it whole, the newest first."""
    steps = [path for path in checkpoints.trained_parts(output) if path.is_dir()]
    found = (checkpoints.intact(step, name) for step in sorted(steps, key=_age))
    return [path for path in reversed(list(found)) if path is not None]


def _same_bytes(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _same_config(one: Path, other: Path) -> bool:
    return _same_bytes(one, other) or (_is_config(other) and not _differences(one, written_config(other)))


def _is_config(path: Path) -> bool:
    try:
        written_config(path)
    except ConfigError:
        return False
    return True


def _hashes(path: Path) -> dict[str, str] | None:
    try:
        found = json_of(path.read_bytes())
    except ValueError:
        return None
    return found if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()) else None


def _is_hashes(path: Path) -> bool:
    return _hashes(path) is not None


def free_output(config: RunSection, *, training: bool = True) -> Path:
    """The output folder: free of a run with another configuration or of trained weights that would be lost.

    training: whether weights are to be trained, which would be kept there. Raises ConfigError otherwise, or where there
    is nothing to resume.
    """
    output, wanted = Path(config.output), config.checkpoint
    found, trained = begun(output), checkpoints.trained_parts(output)
    if wanted.overwrite:
        require_outside(config, output, RUN_PARTS)
        return output
    if found.config is None and wanted.resume and not trained:
        raise ConfigError([f"checkpoint.resume: true, and {output} holds no run. Set checkpoint.resume: false."])
    if found.config is None and trained:
        raise ConfigError(
            [
                f"output {output} holds trained weights ({_listed(output, trained)}) and no {CONFIG_FILE} that says of "
                "which run: it is missing or damaged, and no checkpoint carries it. Put that file back, name another "
                f"output folder, or set checkpoint.overwrite=true, which removes {_going(output)}."
            ]
        )
    if found.config is not None:
        _require_same(config, output, found.config)
    if trained and training and not wanted.resume:
        raise ConfigError(
            [
                f"output {output} holds this run, interrupted, with {_listed(output, trained)}; starting anew would "
                "remove them. Set checkpoint.resume=true to go on from there, name another output folder, or set "
                f"checkpoint.overwrite=true, which removes {_going(output)}."
            ]
        )
    return output


def _differences(saved: Path, config: RunSection) -> list[str]:
    """What a saved configuration has otherwise; its folder may have been moved, or be named otherwise, since."""
    return config_difference(written_config(saved).model_copy(update={"output": config.output}), config)


def _require_same(config: RunSection, output: Path, saved: Path) -> None:
    differences = "; ".join(_differences(saved, config))
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
                f"or set checkpoint.overwrite=true, which removes {_going(output)}."
            ]
        )


def _listed(output: Path, trained: Sequence[Path]) -> str:
    """The checkpoints by the newest one's name, or the files of weights."""
    steps = [path for path in trained if path.is_dir()]
    if steps:
        newest = max(steps, key=lambda path: path.name)
        return f"checkpoints up to {newest.name} ({len(steps)} in all)"
    return f"{some(len(trained), 'file')} of weights, first {trained[0].relative_to(output)}"


def finished_text(output: Path) -> str:
    """What an interrupted run has kept, in a sentence; empty where there is nothing yet, or it cannot be read."""
    try:
        steps = [path for path in checkpoints.trained_parts(output) if path.is_dir()]
    except checkpoints.CheckpointError:
        steps = []
    # By their numbers: a clock may have gone back.
    newest = {path.parent: path for path in steps}.values()
    kept = [f"the checkpoint {path.relative_to(output)}" for path in newest]
    stored = [name for name in ("answers", "evaluated") if any((output / name).glob("*.jsonl"))]
    kept += [f"the finished rows in {' and '.join(f'{name}/' for name in stored)}"] if stored else []
    return f"Safe in {output}: {', '.join(kept)}. " if kept else ""


def _age(path: Path) -> float:
    return path.stat().st_mtime


def _going(output: Path) -> str:
    """What starting anew in the folder removes, by name and size."""
    there = [output / name for name in RUN_PARTS if (output / name).exists()]
    files = [file for part in there for file in (part.rglob("*") if part.is_dir() else (part,)) if file.is_file()]
    names = ", ".join(part.name + "/" * part.is_dir() for part in there)
    return f"{names} in it ({some(len(files), 'file')}, {in_bytes(sum(file.stat().st_size for file in files))})"


def require_room(config: RunSection, output: Path, model: nn.Module, *, training: bool = True) -> None:
    """Raises ConfigError where the output folder's disk has no room for what the run is going to write.

    An estimate: checkpoints with the two moments of AdamW, kept weights and exports; what is there already counts.
    """
    needed = needed_bytes(config, model) if training else REPORTS
    # By inode: kept weights and those in checkpoints are often one file of two names.
    files = {path.stat().st_ino: path.stat().st_size for path in output.rglob("*") if path.is_file()}
    there = sum(files.values())
    missing, free = max(needed - there, REPORTS), free_bytes(output)
    if free is None or free >= missing:
        return
    raise ConfigError(
        [
            f"output {output} needs about {in_bytes(missing)} for checkpoints, kept weights, exports and reports, and "
            f"{in_bytes(free)} are free on that disk. Free space there, name a folder on another disk, or lower "
            f"checkpoint.keep_last (now {config.checkpoint.keep_last})."
        ]
    )


def needed_bytes(config: RunSection, model: nn.Module) -> int:
    """About how many bytes a run writes."""
    whole = sum(value.numel() * value.element_size() for value in model.parameters())
    trained = sum(value.numel() * value.element_size() for value in model.parameters() if value.requires_grad)
    averaged = config.training.averaging is not None
    taught = teaches(config.objective)
    # Weights and two moments; one checkpoint more than are kept while the last is written; three kinds of kept weights.
    stage = (3 + averaged + taught) * trained * (config.checkpoint.keep_last + 1) + 3 * trained
    return (1 + len(config.baselines)) * (stage + trained + whole) + 3 * trained + REPORTS


def carried(config: RunSection, hashes: Mapping[str, str]) -> dict[str, str]:
    """The files that say which run this is, by name: what the output folder and every checkpoint hold."""
    own = {"checkpoint": config.checkpoint.model_copy(update={"resume": False, "overwrite": False})}
    told = json.dumps(dict(hashes), indent=2) + "\n"
    return {CONFIG_FILE: dump_config(config.model_copy(update=own)), HASHES_FILE: told}


def claim(
    config: RunSection,
    accelerator: Accelerator,
    output: Path,
    hashes: Mapping[str, str],
    explain: Callable[[Sequence[str]], str] = lambda changed: "",
) -> None:
    """Writes the resolved configuration and the hashes into the output folder, marks it, and starts the trackers.

    With checkpoint.overwrite what the folder holds of a run is removed first; what interrupted writes left goes too.

    hashes: of the data and of what the run starts from. Raises ConfigError where a run is resumed with others; explain:
    says of the names of those why they changed and what to do, where more is known than to put them back.
    """
    try:
        with together(accelerator):
            if accelerator.is_main_process:
                _claim(config, output, hashes, explain, partial(say, accelerator))
    except BaseException:
        unlocked(output, begun=False)
        raise
    claimed(output)
    if config.tracking.log_with:
        accelerator.init_trackers(config.tracking.project)


def _claim(
    config: RunSection,
    output: Path,
    hashes: Mapping[str, str],
    explain: Callable[[Sequence[str]], str],
    say: Callable[[str], None],
) -> None:
    found, resumed = begun(output), config.checkpoint.resume
    if resumed and found.hashes is not None:
        _require_unchanged(output, _hashes(found.hashes) or {}, hashes, explain)
    texts = {name: text.encode() for name, text in carried(config, hashes).items()}
    if config.checkpoint.overwrite and (found.config is not None or checkpoints.trained_parts(output)):
        say(f"checkpoint.overwrite: removed {_going(output)}")
        for name in RUN_PARTS:
            discard(output / name)
    elif resumed:
        known = {CONFIG_FILE: found.config, HASHES_FILE: found.hashes}
        texts |= {name: path.read_bytes() for name, path in known.items() if path is not None}
    if not config.checkpoint.overwrite:
        for line in found.told:
            say(f"note: {line}")
    sweep(output)
    write_bytes(output / MARK, b"")
    for name, content in texts.items():
        path = output / name
        if not path.is_file() or path.is_symlink() or path.read_bytes() != content:
            write_bytes(path, content)


def resumed_from(accelerator: Accelerator, config: RunSection, folder: Path) -> checkpoints.Checkpoint | None:
    """The newest whole checkpoint beneath a folder where the run is resumed, the same on every process; None for none.

    Raises CheckpointError where none that is there can be used, ConfigError where processes do not find the same.
    """
    if not config.checkpoint.resume:
        return None
    with together(accelerator):
        found = checkpoints.latest(folder, partial(_strange, config, Path(config.output)))
    names = gather_object([None if found is None else found.folder.name])
    if len(set(names)) > 1:
        raise ConfigError(
            [f"processes do not find the same checkpoint in {folder}: {', '.join(map(str, names))}. Share that folder."]
        )
    return found


def _strange(config: RunSection, output: Path, step: Path) -> str | None:
    """What shows that a checkpoint is of another run than the folder; None where nothing does."""
    saved, hashes = checkpoints.intact(step, CONFIG_FILE), checkpoints.intact(step, HASHES_FILE)
    own = output / HASHES_FILE
    differing = [] if saved is None else _differences(saved, config)
    if not differing and hashes is not None and own.is_file() and not _same_bytes(hashes, own):
        differing = [f"{HASHES_FILE} holds others"]
    return f"is of another run ({'; '.join(differing):.200})" if differing else None


def _require_unchanged(
    output: Path, before: Mapping[str, str], hashes: Mapping[str, str], explain: Callable[[Sequence[str]], str]
) -> None:
    changed = sorted(name for name in {*before, *hashes} if before.get(name) != hashes.get(name))
    # An earlier version kept no hash of settings.
    changed = [name for name in changed if name in before or not name.startswith(SETTINGS)]
    if changed:
        remedy = explain(changed) or "Put them back, or start anew in another output folder."
        if any(name.startswith(SETTINGS) for name in changed):
            remedy = f"{OF_SETTINGS} {remedy}"
        raise ConfigError(
            [
                f"checkpoint.resume: true needs what {output} was started with. These have changed since: "
                f"{', '.join(changed)}. {remedy}"
            ]
        )


def finish(output: Path) -> None:
    """Takes the mark off: the report is written."""
    discard(output / MARK)
    unlocked(output)
