"""Where a recipe prints: a screen, a file or a pipe that may end or be full; and what libraries print there."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NoReturn, TextIO

from textadv.values.errors import WriteError
from textadv.values.host.interrupts import asked
from textadv.values.host.printable import not_utf8, printable, shortened

_REMEDIES = {
    errno.EPIPE: "Whoever read it has ended: send it to a file, or read all of it",
    errno.ENOSPC: "The disk that it is sent to is full: free space there, or send it elsewhere",
}


class _Stream:
    """A stream that says in a sentence where it cannot be written.

    heard: whether that ends the run. Once a signal came it does not: whoever reads may have gone before.
    """

    def __init__(self, stream: TextIO, heard: bool) -> None:
        self.stream, self.heard = stream, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Writes the text; how many characters it has. Raises WriteError."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._refused(error)
            return len(text)

    def flush(self) -> None:
        """Sends on what is written. Raises WriteError."""
        try:
            self.stream.flush()
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        _drop(self.stream)
        if self.heard and not asked():
            remedy = _REMEDIES.get(error.errno or 0, "Send it elsewhere")
            raise WriteError(f"standard output cannot be written: {error.strerror}. {remedy}.") from error


def _drop(stream: TextIO) -> None:
    """What is still to be written goes nowhere, so that the interpreter does not fail at it again in the end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (AttributeError, OSError, ValueError):
        pass


def _record(*args: Any, **named: Any) -> logging.LogRecord:
    """A record of the log, whose message may hold text of a model or of rows."""
    record = logging.LogRecord(*args, **named)
    told = record.getMessage
    vars(record)["getMessage"] = lambda: printable(told(), lines=True)
    return record


def parser(description: str | None) -> argparse.ArgumentParser:
    """A reader of a program's command line, which may hold names of files, as `*` gives them.

    What it refuses is told as `printable` writes it; so are arguments that are not UTF-8.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    plain, known = made.error, made.parse_known_args

    def error(told: str) -> NoReturn:
        plain(printable(told))

    def parsed(words: Sequence[str] | None = None, *more: Any, **named: Any) -> Any:
        for word in sys.argv[1:] if words is None else words:
            told = not_utf8(word)
            if told is not None:
                error(f"argument {shortened(word)} {told}")
        return known(words, *more, **named)

    vars(made).update(error=error, parse_known_args=parsed)
    return made


@contextmanager
def screened() -> Iterator[None]:
    """A block that prints: where standard output cannot be written it ends with WriteError, where standard error cannot
    it goes on; warnings and logs of libraries are written as `printable` writes them."""
    factory, form = logging.getLogRecordFactory(), warnings.formatwarning

    def formed(*args: Any, **named: Any) -> str:
        return printable(form(*args, **named), lines=True)

    logging.setLogRecordFactory(_record)
    warnings.formatwarning = formed
    out, err = _Stream(sys.stdout, heard=True), _Stream(sys.stderr, heard=False)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            yield
            out.flush()
    finally:
        logging.setLogRecordFactory(factory)
        warnings.formatwarning = form
