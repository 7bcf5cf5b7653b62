"""Traces of calls, for programs that use OpenTelemetry: `pip install phygitals-async[opentelemetry]`.

One span for each call of an operation, from its beginning to its last attempt, so one for each lookup of a bulk run; no
ids, no keys, no URLs.
"""

from __future__ import annotations

import time
from weakref import WeakKeyDictionary

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, get_tracer

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

    def started(self, call: Call) -> None:
        """Start the call's span, below the span that is current."""
        self._spans[call] = self._tracer.start_span(f"phygitals {call.operation}", kind=SpanKind.CLIENT)

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """Keep the attempt: the last one is what the span shows."""
        self._attempts[call] = attempt, time.time_ns()

    def retrying(self, call: Call, seconds: float) -> None:
        """Add an event for the pause."""
        self._spans[call].add_event("retry", {"pause_seconds": seconds})

    def finished(self, call: Call, error: type[PhygitalsError] | None) -> None:
        """End the span with the last attempt, its status and sizes; an error shows by the name of its class alone."""
        span = self._spans.pop(call)
        ended = None
        if (last := self._attempts.pop(call, None)) is not None:
            # In a bulk run the answer may wait for its consumer long after it came.
            attempt, ended = last
            span.set_attribute("http.request.resend_count", call.attempts - 1)
            span.set_attribute("http.request.body.size", attempt.request_bytes)
            if attempt.status is not None:
                span.set_attribute("http.response.status_code", attempt.status)
                span.set_attribute("http.response.body.size", attempt.response_bytes)
        if error is not None:
            span.set_attribute("error.type", error.__name__)
            span.set_status(Status(StatusCode.ERROR, error.__name__))
        span.end(ended)
