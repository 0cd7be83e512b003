"""How far a long phase is: a bar with the time left where a terminal is there, a line a minute where none is.

Whatever takes long opens a `phase` and says when a part is done; around all that, also what lies between two phases, a
`stage` sees to it that no minute passes without a line. Who is told is decided outside, by `telling`, as it is with
warnings: nobody by default, a screen in the recipes. Nothing of it changes a result.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol, TextIO, TypeVar

from tqdm import tqdm

from textadv.values.host.printable import printable

T = TypeVar("T")
Advance = Callable[[int], None]

PATIENCE, MINUTE, TICK, QUIET = 10.0, 60.0, 1.0, 0.75
# The unit of a stage, of which nothing is counted.
STAGE = ""


class Phases(Protocol):
    """`phases(name, total, unit, done)` is a block; inside it, what it gives is called with each further count of done.

    total: how many there are; None where that is not known. unit: what is counted, in the plural; "" of a stage, of
    which nothing is. done: how many were done before.
    """

    def __call__(
        self, name: str, total: int | None = None, unit: str = "rows", done: int = 0
    ) -> AbstractContextManager[Advance]: ...


@contextmanager
def untold(name: str, total: int | None = None, unit: str = "rows", done: int = 0) -> Iterator[Advance]:
    """Phases of which nobody is told: the library's default."""
    yield lambda count: None


_told: ContextVar[Phases] = ContextVar("told", default=untold)


@contextmanager
def telling(phases: Phases) -> Iterator[None]:
    """Inside the block, `phases` is told of every phase that begins."""
    before = _told.set(phases)
    try:
        yield
    finally:
        _told.reset(before)


def within(whole: str) -> AbstractContextManager[None]:
    """A block whose phases are told of with `whole` before their own names: "hardened: pgd20"."""
    outer = _told.get()

    def inner(
        name: str, total: int | None = None, unit: str = "rows", done: int = 0
    ) -> AbstractContextManager[Advance]:
        return outer(f"{whole}: {name}", total, unit, done)

    return telling(inner)


def phase(name: str, total: int | None = None, unit: str = "rows", done: int = 0) -> AbstractContextManager[Advance]:
    """A phase, told to whoever is told of phases here, see `Phases`."""
    return _told.get()(printable(name), total, unit, done)


def each(name: str, items: Iterable[T], total: int, unit: str = "rows") -> Iterator[T]:
    """The items, one after the other, as a phase in which each counts one."""
    with phase(name, total, unit) as advance:
        for item in items:
            yield item
            advance(1)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A block around phases and what lies between them, of which is told wherever nothing else is for a while."""
    with phase(name, None, STAGE):
        yield


@dataclass
class _Voice:
    """What is open on screens, the innermost last, as functions that tell of it; and when a line was told last."""

    open: list[Callable[[], None]] = field(default_factory=list)
    last: float = 0.0


_voice = _Voice()


@dataclass(frozen=True)
class OnScreen:
    """Phases on a screen, from the moment that one has lasted `patience` seconds.

    stream: where they are told; stderr at the time of the call by default. A terminal gets a bar, anything else a line
    then and every `interval` seconds, also while a single part takes longer than that. A stage tells of whatever is
    open in it where `interval` seconds would pass without a line, as in a row of phases that are all shorter.
    """

    stream: TextIO | None = None
    patience: float = PATIENCE
    interval: float = MINUTE

    @contextmanager
    def __call__(self, name: str, total: int | None = None, unit: str = "rows", done: int = 0) -> Iterator[Advance]:
        """See `Phases`."""
        stream = self.stream or sys.stderr
        show = self._bar if stream.isatty() else self._lines
        with show(stream, printable(name), total, unit, done) as advance:
            yield advance

    @contextmanager
    def _bar(self, stream: TextIO, name: str, total: int | None, unit: str, done: int) -> Iterator[Advance]:
        form = "{desc}, {elapsed} so far" if unit == STAGE else None
        bar = tqdm(
            desc=name,
            total=total,
            unit=f" {unit}",
            initial=done,
            file=stream,
            delay=self.patience,
            leave=False,
            bar_format=form,
        )
        try:
            # A bar moves with the parts that are done; its clock must go on while one takes long.
            with _ticking(bar.refresh, self.patience, TICK):
                yield bar.update
        finally:
            # Closing wipes only what `update` has drawn.
            bar.clear()
            bar.close()

    @contextmanager
    def _lines(self, stream: TextIO, name: str, total: int | None, unit: str, done: int) -> Iterator[Advance]:
        began, count = time.monotonic(), done

        def advance(more: int) -> None:
            nonlocal count
            count += more

        def tell() -> None:
            line = told(name, count, total, unit, time.monotonic() - began, done)
            _voice.last = time.monotonic()
            # A stream that is gone must not end the run from a thread that only tells of it.
            if not stream.closed:
                print(line, file=stream, flush=True)

        def tell_of_silence() -> None:
            if time.monotonic() - max(_voice.last, began) >= QUIET * self.interval:
                _voice.open[-1]()

        _voice.open.append(tell)
        first = min(self.patience, self.interval)
        check = (1 - QUIET) * self.interval
        try:
            with _ticking(tell_of_silence, check, check) if unit == STAGE else _ticking(tell, first, self.interval):
                yield advance
        finally:
            _voice.open.remove(tell)


def on_screen(wanted: bool = True) -> Phases:
    """Phases on the screen, where they are wanted and this is the first of the launched processes; else untold."""
    return OnScreen() if wanted and (os.environ.get("RANK") or "0") == "0" else untold


def told(name: str, count: int, total: int | None, unit: str, seconds: float, before: int = 0) -> str:
    """One line about a phase, such as "hardened: pgd20: 96 of 256 rows, 2:10 left".

    seconds: how long it has lasted. before: how many of `count` were done when it began.
    """
    of = "" if total is None else f" of {total:,}"
    if unit == STAGE:
        return f"{name}, {_clock(seconds)} so far"
    beginning = f"{name}: {count:,}{of} {unit}"
    if total is None or count <= before:
        return f"{beginning} after {_clock(seconds)}"
    return f"{beginning}, {_clock(seconds * max(total - count, 0) / (count - before))} left"


def _clock(seconds: float) -> str:
    """130 as "2:10"."""
    return str(tqdm.format_interval(seconds)).removeprefix("0")


@contextmanager
def _ticking(call: Callable[[], object], first: float, interval: float) -> Iterator[None]:
    """Calls `call` from another thread, first after `first` seconds and then every `interval`, until the block ends."""
    ended = threading.Event()

    def tick() -> None:
        wait = first
        while not ended.wait(wait):
            call()
            wait = interval

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
