"""A folder of a user's data that cannot be listed is told, and its files are not missed in silence."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from textadv.data.folders import files_below
from textadv.values.errors import DataError


def test_all_files_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b/2.png", "a.png", "b/c/1.png", ".hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/link").symlink_to(tmp_path / "b")
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path, "data.train")]
    assert found == [".hidden", "a.png", "b/2.png", "b/c/1.png"]


def test_a_folder_that_may_not_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    listed = os.scandir

    def refusing(path: Any) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="data.train: .*closed cannot be read: Permission denied. Give yourself"):
        files_below(tmp_path, "data.train")
