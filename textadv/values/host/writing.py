"""Every file of a run is written here: whole or not at all, on the disk before it counts, told of where it cannot be.

A file gets its name only when all of it lies on the disk, and its folder is on the disk afterwards. What is being
written has a name that begins with PARTIAL; what an interruption leaves of that, `sweep` removes.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from textadv.values.errors import WriteError

if TYPE_CHECKING:
    from torch import Tensor

PARTIAL = ".partial-"
FULL = (errno.ENOSPC, errno.EDQUOT)
# safetensors and tokenizers, which are not Python, tell an error of the system in words only.
_FOREIGN = re.compile(r"\(os error (\d+)\)")
_REMEDIES = {
    errno.ENOSPC: "Free space on that disk",
    errno.EDQUOT: "Your quota there is used up: remove files of yours, or have it raised",
    errno.EROFS: "That file system can only be read: mount it for writing, or name another folder",
    errno.EACCES: "You may not write there: change the permissions, or name another folder",
    errno.EPERM: "You may not write there: change the permissions, or name another folder",
    errno.EFBIG: "Files there may not become so large: raise the limit (ulimit -f)",
    errno.EIO: "The disk reports a fault: look at it before you go on",
    errno.EEXIST: "Something that is no folder lies there: remove it, or name another folder",
    errno.ENOTDIR: "Something that is no folder lies above it: remove it, or name another folder",
    errno.EISDIR: "A folder lies where a file has to be: remove it, or name another folder",
    errno.ELOOP: "A link lies there: remove it, or name another folder",
    errno.ENAMETOOLONG: "Name a shorter path",
}


def system_error(error: BaseException) -> int | None:
    """The number of the system's error that an exception tells of, also one of code that is not Python."""
    if isinstance(error, OSError):
        return error.errno
    found = _FOREIGN.search(str(error))
    return int(found[1]) if found else None


def in_bytes(count: float) -> str:
    """12_345_678 as "12.3 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.3g} TB"


def free_bytes(place: Path) -> int | None:
    """What is free on the file system of `place`, which need not exist; None where that cannot be asked."""
    for folder in (place, *place.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def _no_files_left(path: Path | str, number: int) -> bool:
    with suppress(OSError, AttributeError):
        there = os.statvfs(Path(path).parent)
        return number == errno.ENOSPC and there.f_files > 0 and there.f_favail == 0
    return False


def refusal(path: Path | str, number: int, needed: int | None = None, what: str = "cannot be written") -> str:
    """One sentence about a file that the system refuses to write, and what to do.

    needed: bytes, where they are known. what: what the system does not let the run do.
    """
    told = f"{path} {what}: {os.strerror(number)}."
    if number in (*FULL, errno.EFBIG):
        free = free_bytes(Path(path).parent)
        size = "" if needed is None else f"{in_bytes(needed)} are needed"
        there = "" if free is None else f"{in_bytes(free)} are free on that disk"
        there = "its disk has no room for further files, however small" if _no_files_left(path, number) else there
        parts = ", ".join(part for part in (size, there) if part)
        told += f" {parts[:1].upper()}{parts[1:]}." if parts else ""
    return f"{told} {_REMEDIES.get(number, 'Make it writable, or name another folder')}."


@contextmanager
def saving(path: Path, needed: int | None = None) -> Iterator[None]:
    """A block that writes `path`, in which what the system refuses is a WriteError; other errors pass.

    needed: bytes, where they are known.
    """
    try:
        yield
    except Exception as error:
        number = system_error(error)
        if number is None:
            raise
        raise WriteError(refusal(path, number, needed)) from error


def sync(path: Path) -> None:
    """Has the bytes of a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot be asked about folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def undone(folder: Path) -> Iterator[None]:
    """A block that may make the folder, and those above it: where it fails, those that are new and empty go again."""
    try:
        fresh = _absent(folder)
    except OSError:
        fresh = []
    try:
        yield
    except BaseException:
        for place in fresh:
            with suppress(OSError):
                place.rmdir()
        raise


def _absent(folder: Path) -> list[Path]:
    """The folder and those above it that are missing, itself first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def made(folder: Path) -> Path:
    """The folder, made with those above it where they are missing, each on the disk in its parent."""
    with saving(folder):
        missing = _absent(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for place in reversed(missing):
            sync(place.parent)
    return folder


def require_writable(folder: Path) -> None:
    """Raises WriteError where nothing can be written into a folder, which is made if missing."""
    # Several processes may try at once, and what a kill leaves is swept with the rest.
    probe = made(folder) / f"{PARTIAL}writable-{os.getpid()}"
    write_bytes(probe, b"\n")
    probe.unlink()


def partial_of(path: Path) -> Path:
    """Where `path` is written until it is whole."""
    return path.with_name(f"{PARTIAL}{path.name}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, needed: int | None = None) -> Iterator[Path]:
    """A block that writes a file, or makes a folder, at the path it is given; then that becomes `path`.

    A folder that lay there goes. Where the block fails `path` is as it was and nothing is left.

    needed: bytes, for the error. Raises WriteError where the system refuses.
    """
    partial = partial_of(path)
    with saving(path, needed):
        made(path.parent)
        _remove(partial)
        try:
            yield partial
            for part in (*partial.rglob("*"), partial) if partial.is_dir() else (partial,):
                sync(part)
            if partial.is_dir():
                discard(path)
            os.replace(partial, path)
            sync(path.parent)
        finally:
            with suppress(OSError):
                _remove(partial)


@contextmanager
def filling(folder: Path, first: str = "") -> Iterator[Path]:
    """A block that writes files beneath the folder it is given; then each takes its place beneath `folder`, whole.

    Other files in `folder` stay. Where the block fails `folder` is as it was and nothing is left.

    first: the name of the file that takes its place before all others. Raises WriteError where the system refuses.
    """
    apart = partial_of(folder)
    with saving(folder):
        made(folder.parent)
        _remove(apart)
        try:
            apart.mkdir()
            yield apart
            files = sorted(
                (path for path in apart.rglob("*") if path.is_file()), key=lambda path: (path.name != first, path)
            )
            for path in files:
                sync(path)
            for path in files:
                target = folder / path.relative_to(apart)
                made(target.parent)
                os.replace(path, target)
                sync(target.parent)
        finally:
            with suppress(OSError):
                _remove(apart)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all. Raises WriteError."""
    with replacing(path, len(content)) as partial, open(partial, "wb") as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Writes tensors of any shape as a safetensors file, whole or not at all.

    about: texts for its header. Raises WriteError.
    """
    with replacing(path, size_of(tensors)) as partial:
        put_tensors(partial, tensors, about)


def put_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Writes tensors of any shape as a safetensors file into a folder that is not whole yet, see `replacing`."""
    from safetensors.torch import save_file  # it loads torch, which most files of a run do without

    save_file(dict(tensors), path, metadata=None if about is None else dict(about))


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors, of any shape, together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def append_line(path: Path, line: str) -> None:
    """Appends a line that is then on the disk, or leaves the file as it was; half a line before it goes.

    Raises WriteError.
    """
    content = line.encode() + b"\n"
    with saving(path, len(content)):
        made(path.parent)
        _make_own(path)
        fresh = not path.exists()
        with open(path, "ab+", buffering=0) as file:
            size = _whole_lines(file)
            try:
                _write_all(file.fileno(), content)
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    file.truncate(size)
                raise
        if fresh:
            sync(path.parent)


def _make_own(path: Path) -> None:
    """What lies at `path` becomes a file that has no other name, which writing to it would change as well."""
    if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
        path.unlink()
    elif path.is_file() and path.stat().st_nlink > 1:
        write_bytes(path, path.read_bytes())


def _whole_lines(file: FileIO) -> int:
    """The size of a file without the half line that an interruption left at its end, which is cut off."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 1, 0))
    if file.read(1) in (b"\n", b""):
        return size
    file.seek(0)
    size = file.readall().rfind(b"\n") + 1
    file.truncate(size)
    return size


def _write_all(descriptor: int, content: bytes) -> None:
    """The system may take less than it is given, as when a disk has just become full."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def discard(path: Path) -> None:
    """Removes a file or folder so that an interruption leaves it whole, or under a name that `sweep` removes.

    Raises WriteError where the system refuses.
    """
    gone = path.with_name(f"{PARTIAL}gone-{path.name}")
    with saving(path):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
            return
        if gone.exists():
            _remove(gone)
        os.replace(path, gone)
    # Rubbish that cannot be removed ends no run: what is left of it is tried again, here and by `sweep`.
    shutil.rmtree(gone, ignore_errors=True)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Removes what interrupted writes left beneath the folder; what cannot be removed stays, and is in nobody's way."""
    for path in sorted(folder.rglob(f"{PARTIAL}*")):
        with suppress(OSError):
            _remove(path)
