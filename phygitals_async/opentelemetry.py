"""Traces of calls, for programs that use OpenTelemetry: `pip install phygitals-async[opentelemetry]`.

One span for each call of an operation, from its beginning to its last attempt, so one for each lookup of a bulk run. It
is the current one while an attempt is made, so that the spans of an instrumented HTTP library stand below it. Its
attributes are those of the HTTP semantic conventions, but for `url.full`: no id, no key and no URL gets into a span.
"""

from __future__ import annotations

import time
from contextlib import suppress
from contextvars import Token
from weakref import WeakKeyDictionary

from opentelemetry import context
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_tracer,
    set_span_in_context,
)

from phygitals_async.errors import PhygitalsError
from phygitals_async.observer import Attempt, Call, Observer


class OpenTelemetryObserver(Observer):
    """An `Observer` that makes spans: `PhygitalsClient(observer=OpenTelemetryObserver())`.

    Args:
        tracer: By default the global provider's tracer for `phygitals_async`.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer or get_tracer("phygitals_async")
        self._spans: WeakKeyDictionary[Call, Span] = WeakKeyDictionary()
        self._attempts: WeakKeyDictionary[Call, tuple[Attempt, int]] = WeakKeyDictionary()
        self._tokens: WeakKeyDictionary[Call, Token[context.Context]] = WeakKeyDictionary()

    def started(self, call: Call) -> None:
        """Start the call's span, below the span that is current."""
        attributes: dict[str, str | int] = {
            "http.request.method": call.method,
            "server.address": call.host,
            "server.port": call.port,
            "url.template": call.path,
        }
        self._spans[call] = self._tracer.start_span(
            f"phygitals {call.operation}", kind=SpanKind.CLIENT, attributes=attributes
        )

    def attempting(self, call: Call) -> None:
        """Make the call's span the current one."""
        self._tokens[call] = context.attach(set_span_in_context(self._spans[call]))

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """Keep the attempt: the last one is what the span shows. The span that was current before is so again."""
        self._attempts[call] = attempt, time.time_ns()
        token = self._tokens.pop(call)
        # As `context.detach` does, which logs an error where a call was abandoned and is collected in another context.
        with suppress(ValueError):
            token.var.reset(token)

    def retrying(self, call: Call, seconds: float) -> None:
        """Add an event for the pause."""
        self._spans[call].add_event("retry", {"pause_seconds": seconds})

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """End the span with the last attempt, its status and sizes; an error shows by the name of its class alone."""
        span = self._spans.pop(call)
        ended = status = None
        if (last := self._attempts.pop(call, None)) is not None:
            # In a bulk run the answer may wait for its consumer long after it came.
            attempt, ended = last
            status = attempt.status
            span.set_attribute("http.request.body.size", attempt.request_bytes)
            if call.attempts > 1:
                span.set_attribute("http.request.resend_count", call.attempts - 1)
            if status is not None:
                span.set_attribute("http.response.status_code", status)
                # The conventions count the bytes on the wire, and call something else so.
                span.set_attribute("phygitals.response.decoded_size", attempt.response_bytes)
        if error is not None:
            span.set_attribute("error.type", error.__name__)
            # A description is for what the status does not tell.
            span.set_status(Status(StatusCode.ERROR, error.__name__ if status is None or status < 400 else None))
        span.end(ended)
