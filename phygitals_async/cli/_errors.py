"""The exit status and the line that each of the library's errors comes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from phygitals_async.cli._endings import Ending, Exit
from phygitals_async.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidArgumentError,
    PhygitalsError,
)


def status_of(error: PhygitalsError) -> Exit:
    """Return the exit status that an error comes to."""
    if isinstance(error, AuthenticationError):
        return Exit.KEY_REFUSED
    if isinstance(error, ConfigurationError | InvalidArgumentError):
        return Exit.USAGE
    return Exit.FAILED


@contextmanager
def told() -> Iterator[None]:
    """Turn an error of the library into the end of the command."""
    try:
        yield
    except PhygitalsError as error:
        raise Ending(str(error), status_of(error)) from None
