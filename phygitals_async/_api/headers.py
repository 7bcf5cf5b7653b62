"""What the headers of an answer say."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from phygitals_async.transport import Response


def retry_after(response: Response) -> float | None:
    """Return the seconds that an answer asks to wait, if it does."""
    asked = _header(response, "retry-after")
    if asked is None:
        return None
    # A date is the server's: compared with this machine's clock, one that is some seconds off would ask too soon.
    sent = parse_date(_header(response, "date") or "")
    return parse_retry_after(asked, sent or datetime.now(UTC))


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds a `Retry-After` header asks to wait, or None for a header that says nothing usable.

    Args:
        value: A number of seconds, or a date.
        now: The time at the server.
    """
    text = value.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        # However many digits there are: a wait beyond every cap makes the caller give up, not ask sooner.
        return float(text)
    moment = parse_date(text)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def parse_date(text: str) -> datetime | None:
    """Return the moment that an HTTP date names, or None for other text."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _header(response: Response, name: str) -> str | None:
    """Look a header up whatever its spelling: a handler in a test may write it in capitals."""
    return next((value for key, value in response.headers.items() if key.lower() == name), None)
