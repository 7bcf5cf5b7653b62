"""What the commands that move money or goods share: they ask first, and say what is known of the end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

import click

from phygitals_async.cli._endings import Ending, Exit, go_on_with, say
from phygitals_async.errors import OutcomeUnknown

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def ask(what: str, *, yes: bool) -> None:
    """Say what is going to be done, and wait for a yes unless that was given.

    Raises:
        Ending: The answer is no, or Ctrl-C.
        UsageError: There is nobody to answer.
    """
    say(what)
    if yes:
        return
    click.echo("Go on? [y/N] ", nl=False, err=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        click.echo(err=True)
        msg = f"interrupted, nothing was sent; go on with: {go_on_with()}"
        raise Ending(msg, Exit.INTERRUPTED) from None
    if not answer:
        click.echo(err=True)
        msg = "nobody answered, and nothing was sent: --yes does not ask."
        raise click.UsageError(msg)
    if answer.strip().lower() not in ("y", "yes"):
        msg = "nothing was sent"
        raise Ending(msg, Exit.FAILED)


@contextmanager
def sending(what: str, find_out: Callable[[OutcomeUnknown | None], str]) -> Iterator[Patience]:
    """Let one call that moves money or goods be made in the block; nothing here makes it again.

    The first Ctrl-C waits for the answer, since without it nobody knows whether the call did anything.

    Args:
        what: What is unknown if the answer is lost, such as `whether the item was sold`.
        find_out: Returns how to find out, given the error that has what could be read of the answer, if there is one.

    Raises:
        Ending: The answer was lost, or not waited for.
    """
    try:
        with Patience() as patience:
            yield patience
    except OutcomeUnknown as error:
        raise _unknown(str(error), what, find_out(error)) from None
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt.__cause__, OutcomeUnknown):
            raise _unknown(str(interrupt.__cause__), what, find_out(interrupt.__cause__)) from None
        notes = getattr(interrupt, "__notes__", ())
        if notes:
            raise _unknown("; ".join(("interrupted", *notes)), what, find_out(None)) from None
        msg = f"interrupted, nothing was sent; go on with: {go_on_with()}"
        raise Ending(msg, Exit.INTERRUPTED) from None


def _unknown(why: str, what: str, find_out: str) -> Ending:
    return Ending(f"{why}. UNKNOWN {what}: do not repeat it, find out first. {find_out}", Exit.FAILED)


class Patience:
    """Lets the first Ctrl-C in its block say that the answer is waited for, and the second one interrupt.

    Attributes:
        is_over: Whether there was one.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._wait)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _wait(self, _number: int, _frame: FrameType | None) -> None:
        self.is_over = True
        signal.signal(signal.SIGINT, self._before)
        say("the request is on its way: waiting for the answer. Ctrl-C again leaves without knowing what it did")
