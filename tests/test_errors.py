"""How an error of the operating system ends a recipe: one sentence where a user can mend it, itself where not."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from textadv.errors import ending


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(number: int) -> None:
    told = str(ending(OSError(number, "No space", "/runs/a.json")).code)
    assert told.startswith("error: a file (/runs/a.json) could not be written, since its disk is full: ")
    assert told.endswith("Free some space and go on with checkpoint.resume=true, or give another output.")


def test_a_full_disk_as_safetensors_tells_it() -> None:
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert "since its disk is full: Error while serializing" in str(ending(error).code)


def test_rights() -> None:
    told = str(ending(PermissionError(errno.EACCES, "Permission denied", "/runs")).code)
    assert "error: a file (/runs) could not be opened, for want of rights: " in told and "\n" not in told


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "no", "x"), OSError("what"), SafetensorError("odd")])
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        ending(error)
    assert caught.value is error
