"""How one call is made: build, be admitted, send, judge, and, where that is safe, try again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Generic, NoReturn, TypeVar

import anyio
from attrs import frozen

from phygitals_async.admission import Admission
from phygitals_async.config import Settings, check_count, check_seconds
from phygitals_async.converter import PhygitalsConverter
from phygitals_async.deadline import within
from phygitals_async.errors import (
    ClientClosed,
    DeadlineExceeded,
    DecodeError,
    OutcomeUnknown,
    PhygitalsError,
    RateLimited,
    RedirectRefused,
    Sent,
    ServerError,
    StatusError,
    TransportError,
)
from phygitals_async.observer import Attempt, Call, Observer, logger, notify
from phygitals_async.operations import Operation
from phygitals_async.progress import current_progress
from phygitals_async.retry import RetryBudget, RetryPolicy
from phygitals_async.runtime import Affinity
from phygitals_async.transport import Request, Response, Transport
from phygitals_async.wire import build_request, check_status, decode

T = TypeVar("T")


@frozen
class Reply(Generic[T]):
    """A 2xx answer that is not decoded yet."""

    engine: Engine
    operation: Operation[T]
    arguments: Mapping[str, Any]
    response: Response
    call: Call

    def result(self) -> T:
        """Decode it, or raise the `PhygitalsError` that tells what is wrong with it. It ends the call."""
        engine = self.engine
        try:
            answer = decode(engine.settings, engine.converter, self.operation, self.response)
        except PhygitalsError as error:
            engine.give_up(self.call, self.operation, self.arguments, error)
        engine.finish(self.call, None)
        return answer


class Engine:
    """Makes calls over one transport with one set of settings."""

    def __init__(
        self,
        transport: Transport,
        settings: Settings,
        converter: PhygitalsConverter,
        *,
        user_agent: str,
        deadline: float,
        attempt_timeout: float,
        max_in_flight: int,
        retry: RetryPolicy,
        observer: Observer | None,
    ) -> None:
        self.transport = transport
        self.settings = settings
        self.converter = converter
        self.observer = observer
        self.closed = False
        self.admission = Admission(check_count("max_in_flight", max_in_flight))
        self._max_in_flight = max_in_flight
        self._deadline = check_seconds("deadline", deadline)
        self._attempt_timeout = check_seconds("attempt_timeout", attempt_timeout)
        self._retry = retry
        self._budget = RetryBudget()
        self._affinity = Affinity("this client")
        self._headers = {
            "X-API-Key": settings.api_key,
            "Accept": "application/json",
            "User-Agent": user_agent,
        }

    async def call(self, operation: Operation[T], deadline: float | None, **arguments: object) -> T:
        """Make one call and return its result, or raise the `PhygitalsError` that tells why not."""
        return (await self.exchange(operation, deadline, **arguments)).result()

    async def exchange(self, operation: Operation[T], deadline: float | None, **arguments: object) -> Reply[T]:
        """Make one call up to its 2xx answer, or raise the `PhygitalsError` that tells why there is none."""
        call = Call(operation.name)
        checked: Mapping[str, Any] = {}
        if self.observer is not None:
            notify(self.observer.started, call)
        try:
            seconds = self._deadline if deadline is None else check_seconds("deadline", deadline)
            checked = operation.check(arguments)
            request = build_request(self.settings, self.converter, self._headers, operation, checked)
            if self._affinity.must_start_afresh():
                self.admission = Admission(self._max_in_flight)
            response = await self._send_until_answered(call, operation, checked, request, seconds)
        except PhygitalsError as error:
            self.give_up(call, operation, checked, error)
        except BaseException:  # Cancelled, or a bug of a transport: the observer's span must end all the same.
            self.finish(call, None)
            raise
        return Reply(self, operation, checked, response, call)

    def finish(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """Tell the observer that a call is over."""
        if self.observer is not None:
            notify(self.observer.finished, call, error)

    def give_up(
        self, call: Call, operation: Operation[Any], arguments: Mapping[str, Any], error: PhygitalsError
    ) -> NoReturn:
        """End a call with `error`, or, where it leaves open what became of money or goods, `OutcomeUnknown` from it."""
        error.describe(operation.name, arguments, call.attempts)
        if not (operation.effect.is_irreversible and _leaves_outcome_open(error)):
            self.finish(call, type(error))
            raise error
        unknown = OutcomeUnknown(f"{operation.effect.value}, and nobody knows whether it did: {error.text}")
        unknown.describe(operation.name, arguments, call.attempts)
        unknown.sent = error.sent
        self.finish(call, OutcomeUnknown)
        raise unknown from error

    async def aclose(self, grace: float) -> None:
        """Refuse new calls, give those in flight `grace` seconds, then close the transport under the rest."""
        self.closed = True
        try:
            with anyio.move_on_after(grace):
                await self.admission.wait_until_idle()
        finally:
            with anyio.CancelScope(shield=True):
                await self.transport.aclose()

    async def _send_until_answered(
        self,
        call: Call,
        operation: Operation[Any],
        arguments: Mapping[str, Any],
        request: Request,
        seconds: float,
    ) -> Response:
        # A call that its loop left behind must not give back a place of the next loop's.
        admission = self.admission
        now = anyio.current_time()
        ends = now + seconds
        failures = 0
        last: PhygitalsError | None = None
        while True:
            if self.closed:
                closed = ClientClosed("the client was closed")
                closed.sent = Sent.NEVER if last is None else last.sent
                raise closed from last
            if not admission.enter_at_once(now):
                now = await self._wait_to_enter(ends, seconds, last)
            try:
                return await self._send(call, operation, arguments, request, now, ends)
            except PhygitalsError as error:
                last = error
            finally:
                admission.leave()
            sent_at, now = now, anyio.current_time()
            self._share_throttling(last, now, sent_at)
            failures += not isinstance(last, RateLimited)
            pause = self._retry.pause(failures, last, is_read=not operation.effect.is_irreversible)
            if pause is None or now + pause >= ends or not self._can_afford(last):
                raise last
            logger.info(
                "%s: attempt %d: %s; again in %.2f s", call.operation, call.attempts, type(last).__name__, pause
            )
            if self.observer is not None:
                notify(self.observer.retrying, call, pause)
            await anyio.sleep(pause)
            now = anyio.current_time()
            if now >= ends:
                raise last

    async def _wait_to_enter(self, ends: float, seconds: float, last: PhygitalsError | None) -> float:
        admission, now = self.admission, anyio.current_time()
        try:
            # A pause that outlasts the deadline is not worth waiting for.
            if admission.pacer.due(now) < ends:
                await within(ends - now, admission.enter)
                now = anyio.current_time()
                if now < ends:
                    return now
                admission.leave()
        except DeadlineExceeded:
            pass
        raise DeadlineExceeded.while_waiting(seconds, Sent.NEVER if last is None else last.sent) from last

    async def _send(
        self,
        call: Call,
        operation: Operation[Any],
        arguments: Mapping[str, Any],
        request: Request,
        now: float,
        ends: float,
    ) -> Response:
        call.attempts += 1
        if (progress := current_progress.get()) is not None:
            progress.attempts += 1
        limit = ends - now
        if not operation.effect.is_irreversible:
            # What moves money or goods is not cut short: its outcome would be unknown for nothing.
            limit = min(limit, self._attempt_timeout)
        response: Response | None = None
        failure: PhygitalsError | None = None
        try:
            response = await within(limit, self.transport.send, request)
            check_status(self.settings, operation, arguments, response)
        except PhygitalsError as error:
            failure = error
            raise
        else:
            return response
        finally:
            self._count_answer(response, now)
            if self.observer is not None or logger.isEnabledFor(logging.DEBUG):
                self._report(call, request, response, failure, now)

    def _report(
        self,
        call: Call,
        request: Request,
        response: Response | None,
        failure: PhygitalsError | None,
        sent_at: float,
    ) -> None:
        attempt = Attempt(
            status=None if response is None else response.status,
            error=None if failure is None else type(failure),
            request_bytes=len(request.body or b""),
            response_bytes=0 if response is None else len(response.body),
            seconds=anyio.current_time() - sent_at,
        )
        outcome = attempt.status or ("cancelled" if failure is None else type(failure).__name__)
        logger.debug("%s: attempt %d: %s in %.3f s", call.operation, call.attempts, outcome, attempt.seconds)
        if self.observer is not None:
            notify(self.observer.attempted, call, attempt)

    def _count_answer(self, response: Response | None, sent_at: float) -> None:
        """Count what shows that the server is up, a refusal too, and what it accepted at the present pace."""
        if response is not None and response.status != 429:
            self.admission.pacer.accepted(sent_at)
            if response.status < 500:
                self._budget.give_back()

    def _share_throttling(self, error: PhygitalsError, now: float, sent_at: float) -> None:
        """Slow all calls down after a 429, or a 503 that says how long to stay away (API sheet, section 5)."""
        asked = error.retry_after if isinstance(error, StatusError) else None
        if not (isinstance(error, RateLimited) or (isinstance(error, ServerError) and asked is not None)):
            return
        bounded = None if asked is None else min(asked, self._retry.longest)
        news = self.admission.pacer.throttled(now, sent_at, bounded)
        if news and (progress := current_progress.get()) is not None:
            progress.throttled += 1

    def _can_afford(self, error: PhygitalsError) -> bool:
        """Whether the budget bears one more repeat; the shared pause alone governs those after a 429."""
        return isinstance(error, RateLimited) or self._budget.take()


def _leaves_outcome_open(error: PhygitalsError) -> bool:
    """Whether the API may have acted on the request although this error came of it."""
    if error.sent is Sent.NEVER or isinstance(error, RedirectRefused):
        return False
    if type(error) is ServerError or type(error) is StatusError:
        return True
    # A proxy that gave up waiting says 408, whatever the API made of the request.
    if isinstance(error, StatusError):
        return error.status == 408
    return isinstance(error, TransportError | DecodeError)
