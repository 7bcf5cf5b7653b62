"""How a command ends: its status, and the line that says why."""

from __future__ import annotations

import enum
import errno
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

# What writing to a stream comes to that takes no more, whatever it is.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# Of the URL of a database, before the host or among the options.
_PASSWORD: Final = re.compile(r"(://[^:@/]*:).*(?=@)|([?&](?:ssl)?password=)[^&]*")


class Exit(enum.IntEnum):
    """What the exit status says."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    KEY_REFUSED = 3
    INTERRUPTED = 4
    # What a shell says of a program that ended by writing to a closed pipe.
    READER_GONE = 141


class Ending(click.ClickException):
    """Ends a command with one line on stderr, or with none where there is nothing to say.

    Attributes:
        code: The exit status.
    """

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def written() -> Iterator[None]:
    """Turn a stdout that takes no more into the end of the command."""
    try:
        yield
    except BrokenPipeError:
        raise Ending("", Exit.READER_GONE) from None
    except OSError as error:
        if error.errno not in _FULL:
            raise
        msg = f"the output could not be written: {error.strerror}"
        raise Ending(msg, Exit.FAILED) from None


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
