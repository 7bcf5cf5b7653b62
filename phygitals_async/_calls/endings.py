"""How a call ends: errors are completed here, and what may have moved money or goods is never passed off as less."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from phygitals_async._api.operation import Operation
from phygitals_async._calls.verdicts import judge
from phygitals_async.errors import (
    ClientClosed,
    DecodeError,
    OutcomeUnknown,
    PhygitalsError,
    Sent,
    StoreError,
    TransportError,
)
from phygitals_async.observer import logger
from phygitals_async.transport import Delivery


def complete(
    error: PhygitalsError,
    last: PhygitalsError | None,
    operation: Operation[Any],
    arguments: Mapping[str, Any],
    attempts: int,
) -> PhygitalsError:
    """Return the error that a call ends with: this one, completed, or the `OutcomeUnknown` that it amounts to.

    Args:
        error: What ended it.
        last: What its last attempt failed with, if one did.
        operation: What it was.
        arguments: What it was called with.
        attempts: How often a request was handed to the transport.
    """
    if isinstance(error, ClientClosed | StoreError) and last is not None:
        # There was no further attempt.
        error.sent = last.sent
    error.describe(operation.name, arguments, attempts)
    if not judge(error, operation.effect).leaves_open:
        return error
    unknown = OutcomeUnknown(
        f"this call {operation.effect.value}, and its outcome is unknown: {error.text}; "
        "find out before calling it again",
        readable=error.readable if isinstance(error, DecodeError) else None,
        sent=error.sent,
    )
    unknown.describe(operation.name, arguments, attempts)
    return unknown


def note_unknown_outcome(error: BaseException, operation: Operation[Any]) -> None:
    """Tell with somebody else's exception that money or goods may have moved."""
    error.add_note(
        f"{operation.name} was under way, and {operation.effect.value}: "
        "find out whether it did before calling it again (see OutcomeUnknown)"
    )
    logger.warning("%s: ended by %s, its outcome is unknown", operation.name, type(error).__name__)


def with_truth(error: PhygitalsError, delivery: Delivery) -> PhygitalsError:
    """Let the error say of the sending what the code that would have sent knows, where that code says something."""
    if delivery.started:
        error.sent = Sent.UNKNOWN if error.sent is Sent.NEVER else error.sent
    elif isinstance(error, TransportError) and delivery.sent is Sent.NEVER:
        error.sent = Sent.NEVER
    return error


def unlisted(error: Exception, delivery: Delivery) -> TransportError:
    """Return what an exception comes to that no transport may raise."""
    name = type(error).__name__
    # The places alone: its text may hold headers, and the key with them.
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("the transport raised %s, which no transport may raise; from:\n%s", name, places)
    failure = TransportError(f"the transport failed: {name}")
    failure.sent = delivery.sent
    return failure
