"""One call: built, admitted, sent, judged, repeated where that is safe, and read."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, cast

from attrs import evolve

from phygitals_async._api.operation import Operation
from phygitals_async._calls.admission import Admission, Lane, Priority
from phygitals_async._calls.lookups import current_lookup
from phygitals_async._calls.verdicts import Verdict, judge
from phygitals_async._checks import check_seconds
from phygitals_async.errors import (
    ClientClosed,
    DeadlineExceeded,
    DecodeError,
    OutcomeUnknown,
    PhygitalsError,
    Sent,
    StatusError,
    TransportError,
)
from phygitals_async.observer import Attempt, Call, logger
from phygitals_async.transport import Delivery, Request, Response

if TYPE_CHECKING:
    from phygitals_async._calls.engine import Engine

T = TypeVar("T")

# The share of its deadline that a call that moves money or goods keeps for the answer.
_RESERVED: Final = 0.25


class Exchange(Generic[T]):
    """One call, from its arguments to its result: `send` it, then take the `result`, or `drop` it.

    Whatever ends it ends it once: the observer is told, the error is complete, and what may have moved money or goods
    without an answer that tells comes out as `OutcomeUnknown`.
    """

    __slots__ = (
        "_admission",
        "_arguments",
        "_call",
        "_deadline",
        "_delivery",
        "_ends",
        "_engine",
        "_failures",
        "_irreversible",
        "_lane",
        "_last",
        "_limited_at",
        "_lookup",
        "_operation",
        "_priority",
        "_response",
        "_seconds",
        "_sent_at",
        "_verdict",
    )

    _admission: Admission
    _lane: Lane
    _response: Response
    _seconds: float
    _sent_at: float
    _verdict: Verdict

    def __init__(
        self, engine: Engine, operation: Operation[T], deadline: float | None, arguments: Mapping[str, Any]
    ) -> None:
        self._engine = engine
        self._operation = operation
        self._deadline = deadline
        self._arguments = arguments
        self._irreversible = operation.effect.is_irreversible
        self._lookup = current_lookup.get()
        self._call = Call(operation.name)
        self._delivery: Delivery | None = None
        self._ends: float | None = None
        self._failures = 0
        self._limited_at: float | None = None
        self._last: PhygitalsError | None = None
        if self._irreversible:
            self._priority = Priority.MONEY
        else:
            self._priority = Priority.SINGLE if self._lookup is None else Priority.BULK
        if engine.hooks is not None:
            engine.hooks.notify("started", self._call)

    async def send(self) -> Self:
        """Send it until there is a 2xx answer, or raise the `PhygitalsError` that tells why there is none."""
        try:
            request = self._prepare()
            while True:
                await self._enter()
                try:
                    self._response = await self._attempt(request)
                except PhygitalsError as error:
                    self._last = error
                else:
                    return self
                finally:
                    self._admission.leave(self._lane, self._priority)
                await self._pause_before_repeating(self._last)
                request = evolve(request, delivery=Delivery())
        except BaseException as error:  # Cancellation too: noted for what it leaves open; passed on.
            self._end(error)
            raise

    def _prepare(self) -> Request:
        engine = self._engine
        self._seconds = engine.deadline if self._deadline is None else check_seconds("deadline", self._deadline)
        given, self._arguments = self._arguments, {}
        self._arguments = self._operation.check(given)
        engine.enter_loop()
        # A call that its loop left behind must not give back a place of the next loop's.
        self._admission = engine.admission
        self._lane = self._admission.lane(self._operation.name)
        return engine.wire.request(self._operation, self._arguments)

    def result(self) -> T:
        """Decode the answer, or raise the `PhygitalsError` that tells what is wrong with it."""
        try:
            result = self._engine.wire.decode(self._operation, self._arguments, self._response)
        except BaseException as error:  # Whatever a structure hook of somebody's raises ends the call, and passes.
            self._end(error)
            raise
        self.drop()
        return result

    def drop(self) -> None:
        """End a call that was answered, and whose answer nobody takes any more."""
        if self._engine.hooks is not None:
            self._engine.hooks.notify("finished", self._call, None)

    def _end(self, error: BaseException) -> None:
        """Complete the error that ends the call, or raise the `OutcomeUnknown` that it amounts to."""
        ended_by: PhygitalsError | None = None
        if isinstance(error, PhygitalsError):
            error.describe(self._operation.name, self._arguments, self._call.attempts)
            ended_by = self._unknown(error) if judge(error, self._operation.effect).leaves_open else error
        elif self._irreversible and self._delivery is not None and self._delivery.sent is not Sent.NEVER:
            self._note(error)
        if self._engine.hooks is not None:
            self._engine.hooks.notify("finished", self._call, None if ended_by is None else type(ended_by))
        if isinstance(ended_by, OutcomeUnknown):
            raise ended_by from error

    def _unknown(self, error: PhygitalsError) -> OutcomeUnknown:
        unknown = OutcomeUnknown(
            f"this call {self._operation.effect.value}, and its outcome is unknown: {error.text}; "
            "find out before calling it again",
            readable=error.readable if isinstance(error, DecodeError) else None,
            sent=error.sent,
        )
        unknown.describe(self._operation.name, self._arguments, self._call.attempts)
        return unknown

    def _note(self, error: BaseException) -> None:
        """Tell with somebody else's exception that money or goods may have moved."""
        name = self._operation.name
        error.add_note(
            f"{name} was under way, and {self._operation.effect.value}: "
            "find out whether it did before calling it again (see OutcomeUnknown)"
        )
        logger.warning("%s: ended by %s, its outcome is unknown", name, type(error).__name__)

    async def _enter(self) -> None:
        """Wait for a place and for the moment to send; then the call's time runs, if it did not before."""
        now = self._engine.affinity.now()
        if self._ends is None and self._priority is not Priority.BULK:
            self._ends = now + self._seconds
        if not self._admission.enter_at_once(self._lane, self._priority, now):
            self._check_open()
            now = await self._wait_to_enter(now)
        try:
            self._check_open()
        except ClientClosed:
            self._admission.leave(self._lane, self._priority)
            raise
        if self._ends is None:
            # How long a lookup of a bulk run waits for its first turn is the run's time, not the call's.
            self._ends = now + self._seconds
        self._sent_at = now

    async def _wait_to_enter(self, now: float) -> float:
        admission, engine = self._admission, self._engine
        if self._ends is None:
            await admission.enter(self._lane, self._priority)
            return engine.affinity.now()
        latest = self._latest
        try:
            # A pause that outlasts the deadline is not worth waiting for.
            if admission.due(self._lane, now) < latest:
                await engine.deadlines.within(latest - now, admission.enter, self._lane, self._priority)
                now = engine.affinity.now()
                if now < latest:
                    return now
                admission.leave(self._lane, self._priority)
        except DeadlineExceeded:
            pass
        raise DeadlineExceeded.while_waiting(self._seconds, self._last) from self._last

    @property
    def _latest(self) -> float:
        """When a request may leave at the latest, in seconds of the loop's clock."""
        if self._ends is None:
            return math.inf
        # What moves money or goods is not sent when there is hardly any time left to learn what came of it.
        return self._ends - self._seconds * _RESERVED if self._irreversible else self._ends

    def _check_open(self) -> None:
        if self._engine.closed:
            closed = ClientClosed("the client was closed")
            closed.sent = Sent.NEVER if self._last is None else self._last.sent
            raise closed from self._last

    async def _attempt(self, request: Request) -> Response:
        engine, lookup = self._engine, self._lookup
        self._delivery = request.delivery
        self._call.attempts += 1
        if lookup is not None:
            lookup.counts.attempts += 1
            if self._irreversible:
                lookup.note_irreversible()
        left = cast("float", self._ends) - self._sent_at
        # What moves money or goods is not cut short: its outcome would be unknown for nothing.
        limit = left if self._irreversible else min(left, engine.attempt_timeout)
        response: Response | None = None
        failure: PhygitalsError | None = None
        try:
            response = await engine.deadlines.within(limit, engine.transport.send, request)
            engine.wire.check_status(self._operation, self._arguments, response)
        except PhygitalsError as error:
            failure = error if response is not None else _with_truth(error, request.delivery)
        except Exception as error:  # noqa: BLE001 - the contract of `Transport`: it must not cost a purchase its truth.
            failure = _unlisted(error, request.delivery)
        finally:
            self._judge(response, failure)
            if engine.hooks is not None or logger.isEnabledFor(logging.DEBUG):
                self._report(request, response, failure)
        if response is None or failure is not None:
            raise cast("PhygitalsError", failure)
        return response

    def _judge(self, response: Response | None, failure: PhygitalsError | None) -> None:
        """Count what shows that the server is up, a refusal too, and what it accepted at the present pace."""
        if failure is None:
            if response is not None:
                self._lane.pacer.accepted(self._sent_at)
                self._engine.budget.give_back()
            return
        self._verdict = judge(failure, self._operation.effect)
        if response is not None and not self._verdict.slows:
            self._lane.pacer.accepted(self._sent_at)
            if not self._verdict.may_pass:
                self._engine.budget.give_back()

    def _report(self, request: Request, response: Response | None, failure: PhygitalsError | None) -> None:
        attempt = Attempt(
            status=None if response is None else response.status,
            error=None if failure is None else type(failure),
            request_bytes=len(request.body or b""),
            response_bytes=0 if response is None else len(response.body),
            seconds=self._engine.affinity.now() - self._sent_at,
        )
        outcome = attempt.status or ("cancelled" if failure is None else type(failure).__name__)
        name, number = self._operation.name, self._call.attempts
        logger.debug("%s: attempt %d: %s in %.3f s", name, number, outcome, attempt.seconds)
        if self._engine.hooks is not None:
            self._engine.hooks.notify("attempted", self._call, attempt)

    async def _pause_before_repeating(self, error: PhygitalsError) -> None:
        """Pause, or raise the error if it is the last word."""
        engine, verdict = self._engine, self._verdict
        now = engine.affinity.now()
        asked = error.retry_after if isinstance(error, StatusError) else None
        if verdict.slows:
            self._slow_down(now, asked)
        if verdict.is_limit:
            self._wait_as_long_as_the_run(now)
        else:
            self._failures += 1
        pause = engine.retry.pause(self._failures, verdict, asked)
        # The pace alone bounds the repeats after a 429; the others have a budget.
        if pause is None or now + pause >= self._latest or not (verdict.is_limit or engine.budget.take()):
            raise error
        name, number = self._operation.name, self._call.attempts
        logger.info("%s: attempt %d: %s; again in %.2f s", name, number, type(error).__name__, pause)
        if engine.hooks is not None:
            engine.hooks.notify("retrying", self._call, pause)
        await self._admission.rest(pause)
        if engine.affinity.now() >= self._latest:
            raise error

    def _wait_as_long_as_the_run(self, now: float) -> None:
        """Let the time of a lookup of a bulk run begin anew with its next turn, within the run's patience."""
        if self._lookup is not None and self._priority is Priority.BULK:
            self._limited_at = now if self._limited_at is None else self._limited_at
            if now - self._limited_at < self._lookup.patience:
                self._ends = None

    def _slow_down(self, now: float, asked: float | None) -> None:
        bounded = None if asked is None else min(asked, self._engine.retry.longest)
        is_read = not self._irreversible
        news = self._admission.throttled(self._lane, now, self._sent_at, bounded, is_read=is_read)
        if news and self._lookup is not None:
            self._lookup.counts.throttled += 1


def _with_truth(error: PhygitalsError, delivery: Delivery) -> PhygitalsError:
    """Let the error say of the sending what the code that would have sent knows, where that code says something."""
    if delivery.started:
        error.sent = Sent.UNKNOWN if error.sent is Sent.NEVER else error.sent
    elif isinstance(error, TransportError) and delivery.sent is Sent.NEVER:
        error.sent = Sent.NEVER
    return error


def _unlisted(error: Exception, delivery: Delivery) -> TransportError:
    name = type(error).__name__
    # The places alone: its text may hold headers, and the key with them.
    places = "".join(traceback.format_tb(error.__traceback__))
    logger.error("the transport raised %s, which no transport may raise; from:\n%s", name, places)
    failure = TransportError(f"the transport failed: {name}")
    failure.sent = delivery.sent
    return failure
