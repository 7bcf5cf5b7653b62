"""How far a bulk run has come, on stderr: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from phygitals_async.cli._endings import say
from phygitals_async.cli._output import on_terminal

if TYPE_CHECKING:
    from rich.progress import Progress

# Seconds until the first line in a log, between two of them, and between two states of a bar.
_FIRST: Final = 1.0
_EVERY: Final = 10.0
_EVERY_ON_TERMINAL: Final = 0.1


class Meter:
    """Shows counts with the total, the rate and the time left, while its block runs and once at its end.

    Where an exception ends it before anything is done, there is nothing to show.

    Args:
        total: How many there are, or None where nobody knows.
        clock: Gives seconds.
    """

    def __init__(self, total: int | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._began = clock()
        self._counts = (0, 0, 0, False)
        self._bar = _bar(total) if sys.stderr.isatty() else None
        self._every, first = (_EVERY, _FIRST) if self._bar is None else (_EVERY_ON_TERMINAL, _EVERY_ON_TERMINAL)
        self._due = self._began + first

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        done, failed, skipped, _ = self._counts
        if exc_type is not None and not done:
            return
        seconds = self._clock() - self._began
        say(f"{_of(done, self._total)} in {_time(seconds)}{_failed(failed)}, {_rate(done - skipped, seconds)}")

    def show(self, done: int, failed: int, *, skipped: int = 0, waiting: bool = False) -> None:
        """Take note of the counts, and show them where it is time.

        Args:
            done: How many have ended, those that failed and those that were skipped included.
            failed: How many of them failed.
            skipped: How many of them took no time, since they were done before.
            waiting: Whether the run waits for the end of an outage or of a pause.
        """
        self._counts = (done, failed, skipped, waiting)
        now = self._clock()
        if now < self._due:
            return
        self._due = now + self._every
        text = self._text(now - self._began)
        if self._bar is None:
            say(text)
        else:
            self._bar.update(self._bar.task_ids[0], completed=done, description=text)

    def _text(self, seconds: float) -> str:
        done, failed, skipped, waiting = self._counts
        text = f"{_of(done, self._total)}{_failed(failed)}, {_rate(done - skipped, seconds)}"
        if self._total is not None and done > skipped:
            text += f", {_time(max(0, self._total - done) * seconds / (done - skipped))} left"
        return text + (", waiting for the API" if waiting else "")


def _of(done: int, total: int | None) -> str:
    return f"{done:,}" if total is None else f"{done:,} of {total:,}"


def _failed(failed: int) -> str:
    return f", {failed:,} failed" if failed else ""


def _rate(done: int, seconds: float) -> str:
    return f"{done / seconds if seconds > 0 else 0:,.0f} per second"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _bar(total: int | None) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    # What is printed meanwhile goes above the bar, but not from a file to a terminal.
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=on_terminal())
    bar.add_task("", total=total)
    return bar
