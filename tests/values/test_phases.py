"""What a screen is told of a long phase, and that a short one, or one that nobody asked about, says nothing."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import pytest

from textadv.values.host.phases import OnScreen, each, on_screen, phase, stage, telling, told, untold, within

SOON = 0.02


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def until(true: Callable[[], bool]) -> None:
    """Waits until it holds; the test fails where it never does."""
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


@pytest.mark.parametrize(
    ("count", "total", "seconds", "before", "line"),
    [
        (96, 256, 60, 0, "pgd20: 96 of 256 rows, 1:40 left"),
        (256, 256, 60, 0, "pgd20: 256 of 256 rows, 0:00 left"),
        (200, 400, 3600, 100, "pgd20: 200 of 400 rows, 2:00:00 left"),
        (0, 256, 61, 0, "pgd20: 0 of 256 rows after 1:01"),
        (100, 400, 61, 100, "pgd20: 100 of 400 rows after 1:01"),
        (1234, None, 61, 0, "pgd20: 1,234 rows after 1:01"),
        (0, None, 61, 0, "pgd20: 0 rows after 1:01"),
    ],
)
def test_a_line_says_how_far_it_is_and_what_is_left(
    count: int, total: int | None, seconds: float, before: int, line: str
) -> None:
    assert told("pgd20", count, total, "rows", seconds, before) == line


def test_without_a_terminal_a_line_comes_in_every_interval_even_while_nothing_is_done() -> None:
    stream = io.StringIO()
    with OnScreen(stream, interval=SOON)("pgd20", 10) as advance:
        until(lambda: stream.getvalue().count("pgd20: 0 of 10 rows after") >= 2)
        advance(4)
        until(lambda: "pgd20: 4 of 10 rows, " in stream.getvalue())
    ended = stream.getvalue()
    time.sleep(3 * SOON)
    assert stream.getvalue() == ended


def test_without_a_terminal_the_first_line_comes_as_soon_as_a_bar_would() -> None:
    stream = io.StringIO()
    with OnScreen(stream, patience=SOON)("encoding texts", 1):
        until(lambda: stream.getvalue().startswith("encoding texts: 0 of 1 rows after 0:0"))
    assert stream.getvalue().count("\n") == 1


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    stream = Terminal()
    with OnScreen(stream, patience=SOON)("pgd20", 10, "rows", 2) as advance:
        until(lambda: "pgd20" in stream.getvalue())
        advance(3)
        time.sleep(2 * SOON)
        advance(1)
        until(lambda: "6/10" in stream.getvalue())
    assert stream.getvalue().endswith("\r")


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_short_phase_says_nothing(kind: type[io.StringIO]) -> None:
    stream = kind()
    with OnScreen(stream)("pgd20", 10) as advance:
        advance(10)
    assert not stream.getvalue().strip()


def test_a_phase_that_fails_ends_its_thread() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="inside"), OnScreen(stream, interval=SOON)("pgd20", 10):
        raise ValueError("inside")
    ended = stream.getvalue()
    time.sleep(3 * SOON)
    assert stream.getvalue() == ended


def test_by_default_nobody_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for begun in (untold, phase):
        with begun("pgd20", 10) as advance:
            advance(10)
    assert capsys.readouterr() == ("", "")


def test_each_counts_the_items_that_are_done() -> None:
    stream = io.StringIO()
    found = []
    with telling(OnScreen(stream, interval=SOON)):
        for item in each("reading", "abc", 3, "files"):
            found.append(item)
            if item == "c":
                until(lambda: "reading: 2 of 3 files, " in stream.getvalue())
    assert found == ["a", "b", "c"]


def test_names_from_outside_act_on_no_screen() -> None:
    stream = io.StringIO()
    with telling(OnScreen(stream, interval=SOON)), phase("runs/\x1b[31mred", 10) as advance:
        advance(4)
        until(lambda: "red: 4 of 10 rows, " in stream.getvalue())
    assert "\x1b" not in stream.getvalue()


def test_phases_within_another_say_so() -> None:
    stream = io.StringIO()
    with telling(OnScreen(stream, interval=SOON)), within("hardened"), phase("pgd20", 10) as advance:
        advance(4)
        until(lambda: "hardened: pgd20: 4 of 10 rows, " in stream.getvalue())


def test_after_the_block_nobody_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    with telling(OnScreen(stream, interval=SOON)), within("hardened"):
        pass
    with phase("pgd20", 10):
        time.sleep(3 * SOON)
    assert stream.getvalue() == "" and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("rank", "wanted", "shown"),
    [(None, True, True), ("0", True, True), ("", True, True), ("1", True, False), ("\udcff", True, False)],
)
def test_one_process_tells(monkeypatch: pytest.MonkeyPatch, rank: str | None, wanted: bool, shown: bool) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert isinstance(on_screen(wanted), OnScreen) == shown
    assert on_screen(False) is untold


def test_a_stage_tells_that_it_goes_on() -> None:
    assert told("making ready", 0, None, "", 61) == "making ready, 1:01 so far"
    stream = io.StringIO()
    with telling(OnScreen(stream, interval=SOON)), stage("making ready"):
        until(lambda: stream.getvalue().count("making ready, 0") >= 2)


def test_a_row_of_phases_that_are_all_short_is_told_of() -> None:
    """Each ends before its first line would come; the stage around them tells of the one that is open."""
    stream = io.StringIO()
    with telling(OnScreen(stream, interval=0.2)), stage("measuring"):
        for number in range(100):
            with phase(f"short {number}", 10) as advance:
                advance(3)
                time.sleep(0.05)
            if "short " in stream.getvalue():
                break
    assert "short " in stream.getvalue() and ": 3 of 10 rows, " in stream.getvalue()


def test_a_stage_is_silent_where_a_phase_in_it_is_told_of() -> None:
    stream = io.StringIO()
    with telling(OnScreen(stream, interval=0.1)), stage("measuring"), phase("pgd20", 10):
        until(lambda: stream.getvalue().count("pgd20: 0 of 10") >= 3)
    assert "measuring" not in stream.getvalue().partition("pgd20")[2]


def test_of_stages_within_stages_the_innermost_is_told() -> None:
    stream = io.StringIO()
    with telling(OnScreen(stream, interval=SOON)), stage("this run"):
        with within("hardened"), stage("measuring"):
            until(lambda: "hardened: measuring, " in stream.getvalue())
        before = stream.getvalue()
        assert "this run" not in before
        until(lambda: "this run, " in stream.getvalue())


def test_after_a_failure_what_is_around_it_is_told_again() -> None:
    stream = io.StringIO()
    with telling(OnScreen(stream, interval=SOON)), stage("this run"):
        with pytest.raises(ValueError, match="inside"), stage("making ready"), phase("reading", 10):
            raise ValueError("inside")
        until(lambda: "this run, " in stream.getvalue())


def test_a_terminal_shows_a_stage_with_its_clock() -> None:
    stream = Terminal()
    with telling(OnScreen(stream, patience=SOON)), stage("making ready"):
        until(lambda: "making ready, " in stream.getvalue() and "so far" in stream.getvalue())
    assert stream.getvalue().endswith("\r")


def test_a_stage_serves_as_a_decorator_that_asks_who_is_told_at_each_call() -> None:
    @stage("loading")
    def load() -> str:
        until(lambda: not listening or "loading, " in stream.getvalue())
        return "done"

    stream, listening = io.StringIO(), False
    assert load() == "done" and stream.getvalue() == ""
    listening = True
    with telling(OnScreen(stream, interval=SOON)):
        assert load() == "done"
