"""SIGTERM, Ctrl-C and the end of a terminal: work ends where nothing is lost, and says so.

SIGHUP, which comes when a terminal closes, is taken as SIGTERM is, unless `nohup` has it ignored.
Outside a `finishing` block all raise Interrupted at once: what a run has written by then is whole. Inside one, SIGTERM
waits for the block to ask for it, for GRACE seconds at most. Only the main thread of a program that asked for it by
`heeding` is affected; the library by itself leaves signals alone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# Below the ten seconds that `docker stop` leaves.
GRACE = 8.0
# A launcher passes on a signal that its processes have had already.
ECHO = 1.0
NAMES = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C", signal.SIGHUP: "SIGHUP, its terminal closed"}


class Interrupted(BaseException):
    """A signal ended the run. number: of the signal. place: where that was, in words; may be empty."""

    def __init__(self, number: int, place: str = "") -> None:
        super().__init__(NAMES.get(signal.Signals(number), str(number)))
        self.number, self.place = number, place


class _State:
    """What the handlers know: whether they are in place, whether a step is finished first, the signal and its time."""

    def __init__(self) -> None:
        self.heeding, self.finishing, self.asked, self.since = False, False, 0, 0.0


_state = _State()


def _heed(number: int, frame: FrameType | None) -> None:
    if _state.asked:
        if number == signal.SIGINT and time.monotonic() - _state.since > ECHO:
            os._exit(128 + number)
        return
    _state.asked, _state.since = number, time.monotonic()
    if not _state.finishing or number == signal.SIGINT:
        raise Interrupted(number)
    signal.setitimer(signal.ITIMER_REAL, GRACE)


def _give_up(number: int, frame: FrameType | None) -> None:
    if _state.finishing and _state.asked:
        raise Interrupted(_state.asked)


def standing_in() -> None:
    """Gives a process whose standard streams were closed beforehand (`>&-`) ones that lead nowhere.

    What it opens would otherwise take their numbers, and whatever prints to a number would write into those files.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(nowhere, True)
    os.close(nowhere)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            # Open until the process ends.
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115


def while_importing() -> None:
    """Has SIGTERM and Ctrl-C end the process with one line and no traceback, until `heeding` begins.

    For the head of a script, before imports that take seconds.
    """

    standing_in()

    def ended(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):
            sys.stderr.write("stopped before anything began\n")
        raise SystemExit(128 + number)

    for number in _heeded():
        signal.signal(number, ended)


def _heeded() -> list[signal.Signals]:
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
    return [signal.SIGTERM, signal.SIGINT, *hangup]


@contextmanager
def heeding() -> Iterator[None]:
    """A block in which SIGTERM and Ctrl-C raise Interrupted; a second Ctrl-C, later, ends the process at once.

    Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signal.SIGALRM: _give_up, **dict.fromkeys(_heeded(), _heed)}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    _state.heeding, _state.asked = True, 0
    try:
        yield
    finally:
        _state.heeding = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def finishing() -> Iterator[None]:
    """A block whose steps SIGTERM does not cut short: `asked` says that it came, and the block ends by itself.

    What does not end in GRACE seconds is cut short all the same.
    """
    if not _state.heeding:
        # A signal that ended an earlier block is none for this one.
        _state.asked = 0
    _state.finishing = True
    try:
        yield
    finally:
        _state.finishing = False


def asked() -> int:
    """The number of the signal that came, 0 for none."""
    return _state.asked


def take_time() -> None:
    """What follows may take as long as it takes, once SIGTERM came: a checkpoint is being written."""
    if _state.asked:
        signal.setitimer(signal.ITIMER_REAL, 0)
