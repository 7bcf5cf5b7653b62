"""How one call is made: build, be admitted, send, judge, and, where that is safe, try again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

import anyio
from attrs import define

from phygitals_async._api.operation import Operation
from phygitals_async._api.wire import build_request, check_status, decode
from phygitals_async._calls.admission import Admission
from phygitals_async._calls.retry import RetryBudget, RetryPolicy
from phygitals_async._checks import check_count, check_seconds
from phygitals_async._loop.affinity import Affinity
from phygitals_async._loop.deadlines import Deadlines
from phygitals_async.config import Settings
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
from phygitals_async.observer import Attempt, Call, Hooks, logger
from phygitals_async.progress import current_progress
from phygitals_async.transport import Request, Response, Transport

if TYPE_CHECKING:
    from phygitals_async._structuring.converter import PhygitalsConverter

T = TypeVar("T")

# The share of its deadline that a call that moves money or goods keeps for the answer.
_RESERVED: Final = 0.25


@define(eq=False, repr=False)
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
        except BaseException as error:  # Whatever a structure hook of somebody's raises: it ends the call, and passes.
            engine.abandon(self.call, self.operation, error)
            raise
        if engine.hooks is not None:
            engine.hooks.notify("finished", self.call, None)
        return answer

    def drop(self) -> None:
        """End the call of an answer that nobody takes."""
        self.engine.finish(self.call, None)


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
        hooks: Hooks | None,
    ) -> None:
        self.transport = transport
        self.settings = settings
        self.converter = converter
        self.hooks = hooks
        self.closed = False
        self.admission = Admission(check_count("max_in_flight", max_in_flight))
        self._deadlines = Deadlines()
        self.max_in_flight = max_in_flight
        self.deadline = check_seconds("deadline", deadline)
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
        if self.hooks is not None:
            self.hooks.notify("started", call)
        try:
            seconds = self.deadline if deadline is None else check_seconds("deadline", deadline)
            checked = operation.check(arguments)
            request = build_request(self.settings, self.converter, self._headers, operation, checked)
            self._enter_loop()
            response = await self._send_until_answered(call, operation, checked, request, seconds)
        except PhygitalsError as error:
            self.give_up(call, operation, checked, error)
        except BaseException as error:  # Cancellation, or a transport's bug: noted for what it leaves open; passed on.
            self.abandon(call, operation, error)
            raise
        return Reply(self, operation, checked, response, call)

    async def within(self, seconds: float, call: Callable[[], Awaitable[T]]) -> T:
        """Await something that makes calls, cancelling it after `seconds`.

        Raises:
            DeadlineExceeded: The time was up first.
            ConfigurationError: The client is in use by another event loop.
        """
        self._enter_loop()
        return await self._deadlines.within(seconds, call)

    def _enter_loop(self) -> None:
        if self._affinity.must_start_afresh():
            self.admission = Admission(self.max_in_flight)
            self._deadlines = Deadlines()

    def finish(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """Tell the observer that a call is over."""
        if self.hooks is not None:
            self.hooks.notify("finished", call, error)

    def give_up(
        self, call: Call, operation: Operation[Any], arguments: Mapping[str, Any], error: PhygitalsError
    ) -> NoReturn:
        """End a call with `error`, or, where it leaves open what became of money or goods, `OutcomeUnknown` from it."""
        error.describe(operation.name, arguments, call.attempts)
        if not (operation.effect.is_irreversible and _leaves_outcome_open(error)):
            self.finish(call, type(error))
            raise error
        unknown = OutcomeUnknown(
            f"this call {operation.effect.value}, and its outcome is unknown: {error.text}; "
            "find out before calling it again",
            readable=error.readable if isinstance(error, DecodeError) else None,
        )
        unknown.describe(operation.name, arguments, call.attempts)
        unknown.sent = error.sent
        self.finish(call, OutcomeUnknown)
        raise unknown from error

    def abandon(self, call: Call, operation: Operation[Any], error: BaseException) -> None:
        """End a call with an exception of somebody else's, which must not hide that money or goods may have moved."""
        if operation.effect.is_irreversible and call.attempts:
            error.add_note(
                f"{operation.name} was under way, and {operation.effect.value}: "
                "find out whether it did before calling it again (see OutcomeUnknown)"
            )
            logger.warning("%s: ended by %s, its outcome is unknown", operation.name, type(error).__name__)
        self.finish(call, None)

    async def aclose(self, grace: float) -> None:
        """Refuse new calls, give those in flight `grace` seconds, then close the transport under the rest.

        Raises:
            ConfigurationError: The client is in use by another event loop.
        """
        self._enter_loop()
        self.closed = True
        self.admission.close()
        try:
            with anyio.move_on_after(grace):
                await self.admission.wait_until_idle()
        finally:
            with anyio.CancelScope(shield=True):
                await self.transport.aclose()
            self._deadlines.stop()

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
        now = self._affinity.now()
        ends = now + seconds
        irreversible = operation.effect.is_irreversible
        # What moves money or goods is not sent when there is hardly any time left to learn what came of it.
        latest = ends - seconds * _RESERVED if irreversible else ends
        failures = 0
        last: PhygitalsError | None = None
        while True:
            if not admission.enter_at_once(now):
                self._check_open(last)
                now = await self._wait_to_enter(latest, seconds, last)
            try:
                self._check_open(last)
                # What moves money or goods is not cut short: its outcome would be unknown for nothing.
                limit = ends - now if irreversible else min(ends - now, self._attempt_timeout)
                return await self._send(call, operation, arguments, request, now, limit)
            except PhygitalsError as error:
                last = error
            finally:
                admission.leave()
            sent_at, now = now, self._affinity.now()
            self._share_throttling(last, now, sent_at)
            failures += not isinstance(last, RateLimited)
            pause = self._retry.pause(failures, last, is_read=not irreversible)
            if pause is None or now + pause >= latest or not self._can_afford(last):
                raise last
            logger.info(
                "%s: attempt %d: %s; again in %.2f s", call.operation, call.attempts, type(last).__name__, pause
            )
            if self.hooks is not None:
                self.hooks.notify("retrying", call, pause)
            await admission.rest(pause)
            now = self._affinity.now()
            if now >= latest:
                raise last

    def _check_open(self, last: PhygitalsError | None) -> None:
        if self.closed:
            closed = ClientClosed("the client was closed")
            closed.sent = Sent.NEVER if last is None else last.sent
            raise closed from last

    async def _wait_to_enter(self, latest: float, seconds: float, last: PhygitalsError | None) -> float:
        admission, now = self.admission, self._affinity.now()
        if (progress := current_progress.get()) is not None and not admission.asked_too_long:
            progress.resumes = admission.pacer.resumes
        try:
            # A pause that outlasts the deadline is not worth waiting for.
            if admission.pacer.due(now) < latest:
                await self._deadlines.within(latest - now, admission.enter)
                now = self._affinity.now()
                if now < latest:
                    return now
                admission.leave()
        except DeadlineExceeded:
            pass
        raise DeadlineExceeded.while_waiting(seconds, last) from last

    async def _send(
        self,
        call: Call,
        operation: Operation[Any],
        arguments: Mapping[str, Any],
        request: Request,
        now: float,
        limit: float,
    ) -> Response:
        call.attempts += 1
        if (progress := current_progress.get()) is not None:
            progress.attempts += 1
        response: Response | None = None
        failure: PhygitalsError | None = None
        try:
            response = await self._deadlines.within(limit, self.transport.send, request)
            check_status(self.settings, operation, arguments, response)
        except PhygitalsError as error:
            failure = error
            raise
        else:
            return response
        finally:
            self._count_answer(response, now)
            if self.hooks is not None or logger.isEnabledFor(logging.DEBUG):
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
            seconds=self._affinity.now() - sent_at,
        )
        outcome = attempt.status or ("cancelled" if failure is None else type(failure).__name__)
        logger.debug("%s: attempt %d: %s in %.3f s", call.operation, call.attempts, outcome, attempt.seconds)
        if self.hooks is not None:
            self.hooks.notify("attempted", call, attempt)

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
        self.admission.asked_too_long = bounded != asked
        news = self.admission.pacer.throttled(now, sent_at, bounded)
        if news and (progress := current_progress.get()) is not None:
            progress.throttled += 1

    def _can_afford(self, error: PhygitalsError) -> bool:
        """Whether the budget bears one more repeat; the shared pause alone governs those after a 429."""
        return isinstance(error, RateLimited) or self._budget.take()


def _leaves_outcome_open(error: PhygitalsError) -> bool:
    """Whether the API may have acted on the request although this error came of it."""
    if error.sent is Sent.NEVER:
        return False
    if isinstance(error, RedirectRefused):
        # These ask to send the same elsewhere. The others may be what a server says once it has acted, 303 above all.
        return error.status not in (301, 307, 308)
    if type(error) is ServerError or type(error) is StatusError:
        return True
    # A proxy that gave up waiting says 408, whatever the API made of the request.
    if isinstance(error, StatusError):
        return error.status == 408
    return isinstance(error, TransportError | DecodeError)
