"""How a command ends: its status, and the line that says why."""

from __future__ import annotations

import enum
import re
import shlex
from typing import Final

import click

# Of the URL of a database, before the host or among the options.
_PASSWORD: Final = re.compile(r"(://[^:@/]*:).*(?=@)|([?&](?:ssl)?password=)[^&]*")


class Exit(enum.IntEnum):
    """What the exit status says."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    KEY_REFUSED = 3
    INTERRUPTED = 4


class Ending(click.ClickException):
    """Ends a command with one line on stderr.

    Attributes:
        code: The exit status.
    """

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


def plain(value: object) -> str:
    """Return a text in one line without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in str(value))


def say(text: str) -> None:
    """Write one line to stderr."""
    click.echo(f"phygitals: {plain(' '.join(text.split()))}", err=True)


def go_on_with(*arguments: str) -> str:
    """Return a command as one would type it; without arguments, the one that is running."""
    words = arguments or click.get_current_context().obj
    # Of the URL of a database; what is told on stderr ends up in logs.
    shown = (_PASSWORD.sub(r"\1\2***", word) for word in words)
    return shlex.join(("phygitals", *shown))
