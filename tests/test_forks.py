"""Forked processes end, print and order their sets as freshly started ones do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.processes import WORKER, forked, name_of, worked


def end(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raised":
        raise ValueError("a reason")
    sys.exit(int(how) if how.isdigit() else how)


@pytest.mark.parametrize(
    ("how", "code", "last"),
    [("0", 0, ""), ("3", 3, ""), ("a sentence", 1, "a sentence"), ("raised", 1, "ValueError: a reason")],
)
def test_status_and_last_line_are_those_of_an_interpreter(how: str, code: int, last: str) -> None:
    ended = worked(end, how)
    assert ended.returncode == code
    assert (ended.stdout.splitlines() or [""])[-1] == last


def test_a_signal_is_told() -> None:
    assert worked(end, "killed").returncode == -signal.SIGKILL


def tell() -> None:
    print(hash("a word"), sys.argv[-1], sys.orig_argv[1:], os.getpid() == os.getsid(0))


def test_processes_that_follow_one_another_have_other_hash_seeds() -> None:
    first, second = (worked(tell).stdout.split(maxsplit=1) for _ in range(2))
    assert first[0] != second[0]
    assert first[1] == second[1] == f"{name_of(tell)} {[WORKER, name_of(tell)]} True\n"


def wait_or_fail() -> None:
    if os.environ.get("RANK") == "1":
        sys.exit("this one fails")
    time.sleep(600)


def test_where_one_of_two_fails_the_other_is_ended() -> None:
    ended = forked([WORKER, name_of(wait_or_fail)], processes=2)
    assert ended.returncode == 1 and ended.stdout == "this one fails\n"


def test_one_that_takes_too_long_is_ended_and_the_next_begins() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        forked([WORKER, name_of(wait_or_fail)], timeout=0.5)
    assert [worked(end, "0").returncode for _ in range(2)] == [0, 0]
