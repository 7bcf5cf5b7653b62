"""The record of calls that move money or goods: the intent before anything is sent, the outcome after it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TypeVar

import anyio
import msgspec
from attrs import evolve, field, frozen

from phygitals_async._api.operation import Operation
from phygitals_async._calls.engine import Engine
from phygitals_async._calls.exchange import call
from phygitals_async._calls.ownership import look_first
from phygitals_async._checks import check_seconds
from phygitals_async._loop.loops import running_loop
from phygitals_async._loop.waiting import wait_out
from phygitals_async.errors import InvalidArgumentError, OutcomeUnknown, PhygitalsError, Sent
from phygitals_async.models import ShippingQuotes
from phygitals_async.models.fields import Instant
from phygitals_async.observer import logger

T = TypeVar("T")

# Seconds that the outcome has to get into the journal. Who waits for the answer waits for it.
_PATIENCE: Final = 10.0
# What is left of a deadline that the journal has used up.
_HARDLY_ANY: Final = 0.001


@frozen
class JournalEntry:
    """One call that moves money or goods, as a journal has it.

    Attributes:
        id: Of the entry.
        operation: The client method: `start_purchase`, `sell_back` or `request_shipping`. Quotes are written down too,
            as `quote_shipping`, since a request names only its quote.
        arguments: What it was called with, by name: ids and the amount, and never the address.
        started_at: When the intent was written, UTC.
        ended_at: When the outcome was, UTC; None where it was not: the process was killed, or the journal failed.
        outcome: `done`, `failed` where it certainly was not done, `unknown`, or None where none was written.
        detail: The answer, or the error as in `PhygitalsError.to_dict`, with what could be read of a broken answer.
        api: Where the call went: base URL and path prefix.
    """

    id: str
    operation: str
    arguments: Mapping[str, Any] = field(hash=False)
    started_at: Instant
    ended_at: Instant | None = None
    outcome: Literal["done", "failed", "unknown"] | None = None
    detail: Mapping[str, Any] = field(factory=dict, hash=False)
    api: str = ""

    @property
    def is_open(self) -> bool:
        """Whether nobody knows yet what came of the call."""
        return self.outcome in (None, "unknown")


class Journal(Protocol):
    """What keeps the entries; every store of `phygitals_async.refresh` does."""

    async def write_entry(self, entry: JournalEntry) -> None:
        """Keep an entry, in the place of one of the same id. When it returns, a power cut must not lose it."""
        ...

    async def read_entry(self, entry_id: str) -> JournalEntry | None:
        """Return the entry of an id, or None where there is none."""
        ...

    async def open_entries(self) -> Sequence[JournalEntry]:
        """Return the entries of which nobody knows yet what came of them, the oldest first."""
        ...

    async def entry_page(self, since: datetime, after: str, limit: int) -> Sequence[JournalEntry]:
        """Return at most `limit` entries that started later than `since`, or then and have an id greater than `after`.

        The oldest come first, and of the same time those with smaller ids.
        """
        ...


async def recorded(
    journal: Journal | None,
    owner: str | None,
    engine: Engine,
    operation: Operation[T],
    deadline: float | None,
    **arguments: object,
) -> T:
    """Make a call between its intent and its outcome; with neither journal nor owner, just make it.

    Where an owner is named, the look into the inventory comes first: what is intended is a call that may be made.

    Raises:
        NotOwned: The owner's inventory does not show what the call is about.
        StoreError: The intent could not be written, and nothing was sent. Or whatever else a journal raises then.
    """
    if journal is None and owner is None:
        return await call(engine, operation, deadline, **arguments)
    checked, left = await _begun(owner, engine, operation, deadline, arguments)
    if journal is None:
        return await call(engine, operation, left, **checked)
    entry = JournalEntry(
        os.urandom(16).hex(),
        operation.name,
        _with_owner(checked, owner),
        datetime.now(UTC),
        api=engine.wire.settings.root,
    )
    began = engine.clock.now()
    try:
        await engine.within(left, lambda: journal.write_entry(entry))
    except PhygitalsError as error:
        error.describe(operation.name, checked, 0)
        error.sent = Sent.NEVER
        raise
    left = max(left - (engine.clock.now() - began), _HARDLY_ANY)
    try:
        result = await call(engine, operation, left, **checked)
    except BaseException as error:  # Cancellation too leaves an outcome; passed on.
        await _conclude(journal, entry, _outcome(error), _told(error))
        raise
    await _conclude(journal, entry, "done", _plain(result))
    return result


async def recorded_quotes(
    journal: Journal | None,
    owner: str | None,
    engine: Engine,
    operation: Operation[ShippingQuotes],
    deadline: float | None,
    **arguments: object,
) -> ShippingQuotes:
    """Ask for quotes, and write down what each is for: a request will name nothing but the quote."""
    if journal is None and owner is None:
        return await call(engine, operation, deadline, **arguments)
    checked, left = await _begun(owner, engine, operation, deadline, arguments)
    quotes = await call(engine, operation, left, **checked)
    if journal is None:
        return quotes
    known, root = _with_owner({"item_ids": checked["item_ids"]}, owner), engine.wire.settings.root
    for quote in quotes.quotes:
        entry = JournalEntry(quote_entry(quote.id), operation.name, known, datetime.now(UTC), api=root)
        await _conclude(journal, entry, "done", {})
    return quotes


async def _begun(
    owner: str | None,
    engine: Engine,
    operation: Operation[Any],
    deadline: float | None,
    arguments: Mapping[str, object],
) -> tuple[dict[str, Any], float]:
    """Return the arguments as they are sent, and the seconds left, once it is seen whose the items are."""
    seconds = engine.deadline if deadline is None else check_seconds("deadline", deadline)
    # Ids are read once, and nothing is asked about what could not be sent.
    checked = _checked(operation, arguments)
    if owner is not None:
        seconds = await look_first(owner, engine, operation, seconds, checked)
    return checked, seconds


def _checked(operation: Operation[Any], arguments: Mapping[str, object]) -> dict[str, Any]:
    try:
        return operation.check(arguments)
    except InvalidArgumentError as error:
        error.describe(operation.name, arguments, 0)
        raise


def _with_owner(arguments: Mapping[str, Any], owner: str | None) -> Mapping[str, Any]:
    return arguments if owner is None else {**arguments, "owner": owner}


def quote_entry(quote_id: str) -> str:
    """Return the id of a quote's entry."""
    return f"quote {quote_id}"


async def _conclude(
    journal: Journal,
    entry: JournalEntry,
    outcome: Literal["done", "failed", "unknown"],
    detail: Mapping[str, Any],
) -> None:
    """Write the outcome. Where that fails, it is logged: it must not cost the caller the answer."""
    ended = evolve(entry, ended_at=datetime.now(UTC), outcome=outcome, detail=detail)
    over = anyio.Event()

    async def write() -> None:
        with anyio.move_on_after(_PATIENCE) as scope:
            try:
                await journal.write_entry(ended)
            except Exception:  # noqa: BLE001 - a journal of anybody's; logged with its traceback, and the entry stays open.
                logger.exception("%s: the outcome could not be written to the journal: %s", entry.operation, outcome)
            except anyio.get_cancelled_exc_class():
                if not scope.cancel_called:
                    # The event loop ends, and nobody waits any more.
                    logger.error("%s: the outcome did not get into the journal: %s", entry.operation, outcome)
                raise
        if scope.cancelled_caught:
            logger.error("%s: the outcome was not written to the journal in time: %s", entry.operation, outcome)

    # In a task of its own, for no shield keeps off the cancellation that `asyncio.timeout` and `Task.cancel` bring.
    running_loop().spawn(write, copy_context(), over.set)
    await wait_out(over.wait)


def _outcome(error: BaseException) -> Literal["failed", "unknown"]:
    certain = isinstance(error, PhygitalsError) and not isinstance(error, OutcomeUnknown)
    return "failed" if certain else "unknown"


def _told(error: BaseException) -> dict[str, Any]:
    if not isinstance(error, PhygitalsError):
        return {"class": type(error).__name__}
    return {**error.to_dict(), **_plain(getattr(error, "readable", {}))}


def _plain(value: object) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value, enc_hook=str)
    return plain
