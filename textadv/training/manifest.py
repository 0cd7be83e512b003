"""The list of a folder's files with their checksums, which lies in the folder and holds a checksum of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from textadv.values.host.printable import shortened
from textadv.values.host.reading import json_of

MANIFEST, FORMAT = "manifest.json", 2
CHUNK = 1 << 22


class DamagedError(Exception):
    """A folder that is not as it was written; the message names the file and what is wrong with it."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(CHUNK):
            found.update(part)
    return found.hexdigest()


def write_manifest(folder: Path) -> None:
    """Lists all files that lie in the folder; what is added later is not part of it."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in sorted(folder.iterdir())
        if path.name != MANIFEST
    }
    told = {"format": FORMAT, "files": files, "sha256": _own(files)}
    (folder / MANIFEST).write_text(json.dumps(told, indent=1), encoding="utf-8")


def _own(files: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([FORMAT, files], sort_keys=True).encode()).hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises DamagedError where there is none."""
    try:
        _require_file(path)
        found = json_of(path.read_bytes().decode())
    except OSError as error:
        raise DamagedError(f"{path.name} {_unreadable(error)}") from error
    except ValueError as error:
        raise DamagedError(f"{path.name} holds no JSON") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{path.name} holds {type(found).__name__} in place of an object")
    return found


def _require_file(path: Path) -> None:
    # Reading a pipe waits for ever.
    if path.exists() and not path.is_file():
        raise DamagedError(f"{path.name} is no file")


def _unreadable(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"


def listed(folder: Path) -> dict[str, str]:
    """The checksums that the folder's manifest holds, by name of the file.

    Raises DamagedError where the manifest is missing or not as it was written.
    """
    told = read_object(folder / MANIFEST)
    files = told.get("files")
    if told.get("format") != FORMAT or not isinstance(files, dict) or told.get("sha256") != _own(files):
        raise DamagedError(f"{MANIFEST} is not as it was written")
    try:
        return {name: str(entry["sha256"]) for name, entry in files.items()}
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{MANIFEST} holds an entry that is none") from error


def require_intact(folder: Path, hashes: dict[str, str], names: Collection[str]) -> None:
    """Raises DamagedError where one of the named files is missing or does not have its checksum."""
    for name in names:
        try:
            _require_file(folder / name)
            found = file_hash(folder / name)
        except OSError as error:
            raise DamagedError(f"{shortened(name)} {_unreadable(error)}") from error
        except ValueError as error:
            raise DamagedError(f"{shortened(name)} is no name of a file") from error
        if found != hashes[name]:
            raise DamagedError(f"{name} holds other bytes than were written")
