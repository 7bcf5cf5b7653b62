"""Requests from operations, and results or errors from responses. Nothing here does I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, unquote

from phygitals_async import errors
from phygitals_async._api.operation import Operation
from phygitals_async.config import Settings
from phygitals_async.errors import DecodeError, PhygitalsError, RedirectRefused, StatusError
from phygitals_async.transport import Request, Response

if TYPE_CHECKING:
    from phygitals_async._structuring.converter import PhygitalsConverter

T = TypeVar("T")

_SNIPPET_CHARS: Final = 200
# An error body longer than this is no API message; it is not worth parsing.
_LONGEST_ERROR_BODY: Final = 64 * 1024

# What a JSON string may write in the place of a character.
_JSON_ESCAPE: Final = r"\\(?:u([0-9A-Fa-f]{4})|(.))"

_FAMILIES: Final[Mapping[int, type[StatusError]]] = {
    401: errors.AuthenticationError,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    429: errors.RateLimited,
}


def build_request(
    settings: Settings,
    converter: PhygitalsConverter,
    headers: Mapping[str, str],
    operation: Operation[Any],
    arguments: Mapping[str, Any],
) -> Request:
    """Build the request for `operation`.

    The URL is appended together, never resolved, so the sandbox's `/_` survives (API sheet, section 1),
    and every argument in it is percent-encoded whole.

    Args:
        settings: Where to send it.
        converter: Writes the body.
        headers: Headers of every request.
        operation: What to ask.
        arguments: Checked: what `operation.check` returned.
    """
    url = settings.root
    for piece, name in operation.segments:
        url += piece + quote(arguments[name], safe="") if name else piece
    if operation.query:
        url += _query(operation, arguments)
    if not operation.body:
        return Request(operation.method, url, dict(headers))
    body = {field: arguments[argument.name] for field, argument in operation.body.items()}
    return Request(operation.method, url, {**headers, "Content-Type": "application/json"}, converter.dumps(body))


def _query(operation: Operation[Any], arguments: Mapping[str, Any]) -> str:
    pairs = []
    for parameter, argument in operation.query.items():
        value = arguments[argument.name]
        values = value if isinstance(value, list) else [value]
        pairs += [f"{parameter}={quote(_text(one), safe='')}" for one in values if one is not None]
    return "?" + "&".join(pairs) if pairs else ""


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def check_status(
    settings: Settings, operation: Operation[Any], arguments: Mapping[str, object], response: Response
) -> None:
    """Raise the error that a status other than 2xx stands for. It is judged before the body is looked at.

    Raises:
        RedirectRefused: Any 3xx.
        StatusError: Any other status that is not 2xx.
    """
    status = response.status
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        msg = f"{status}: a redirect is never followed, since it would carry the API key along"
        raise RedirectRefused(msg, status=status)
    raise _refusal(settings, operation, arguments, response)


def decode(settings: Settings, converter: PhygitalsConverter, operation: Operation[T], response: Response) -> T:
    """Return the result in a 2xx answer.

    Raises:
        DecodeError: The body is not what the API documents.
        StatusError: A refusal that came as a 2xx.
    """
    try:
        return operation.read(converter.loads(response.body, operation.answer))
    except DecodeError as error:
        error.status = response.status
        error.snippet = _snippet(settings, response.body)
        error.problems = tuple(_printable(settings, problem) for problem in error.problems)
        error.readable = _readable(settings, operation, response.body)
        failure: PhygitalsError = error
    except StatusError as error:
        message, snippet = _printable(settings, error.message), _snippet(settings, response.body)
        failure = type(error)(status=response.status, message=message, snippet=snippet)
    # Without the frames that held the body: it may echo the key, and error reporters show locals.
    raise failure.with_traceback(None)


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds a `Retry-After` header asks to wait, or None for a header that says nothing usable."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        # However many digits there are: a wait beyond every cap makes the caller give up, not ask sooner.
        return float(text)
    # Imported late: the email package is slow to load, and dates are rare here.
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (aware - now).total_seconds())


def _refusal(
    settings: Settings, operation: Operation[Any], arguments: Mapping[str, object], response: Response
) -> StatusError:
    status = response.status
    body = _plain(response.body)
    about: dict[str, Any] = {
        "retry_after": parse_retry_after(_header(response, "retry-after"), datetime.now(UTC)),
        "status": status,
        "message": _message(settings, body),
        "snippet": _snippet(settings, response.body),
    }
    for refusal in operation.refusals:
        if refusal.matches(status, body):
            details = refusal.details(body, arguments) if refusal.details else {}
            shown = {k: _printable(settings, v) if isinstance(v, str) else v for k, v in details.items()}
            # A suggested address that holds the key is none.
            safe = {k: v for k, v in shown.items() if not _shows_key(settings, repr(v))}
            return refusal.error(**{**about, **safe})
    if status == 401:
        # A mistyped sandbox key is a production key.
        about["text"] = f"{StatusError(**about)}; this client is set up for {settings.environment}"
    if 400 <= status < 500:
        return _FAMILIES.get(status, errors.BadRequest)(**about)
    return (errors.ServerError if 500 <= status < 600 else StatusError)(**about)


def _header(response: Response, name: str) -> str | None:
    """Look a header up whatever its spelling: a handler in a test may write it in capitals."""
    return next((value for key, value in response.headers.items() if key.lower() == name), None)


def _plain(body: bytes) -> Mapping[str, Any]:
    """Return an error body that is a JSON object, and nothing for any other."""
    if len(body) > _LONGEST_ERROR_BODY:
        return {}
    # Imported late: it takes as long to load as half of this package, and answers alone need it.
    import msgspec

    try:
        plain = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}


def _message(settings: Settings, body: Mapping[str, Any]) -> str:
    """Return the API's own sentence: `error`, else `message` (API sheet, section 5)."""
    found = (body.get("error"), body.get("message"))
    return next((_printable(settings, text) for text in found if isinstance(text, str) and text), "")


def _snippet(settings: Settings, body: bytes) -> str:
    head = body[:_LONGEST_ERROR_BODY].decode(errors="replace")
    # Where the body is cut, the key may be: what could be a part of it is left out.
    return _printable(settings, head, cut=len(settings.api_key) if len(body) > _LONGEST_ERROR_BODY else 0)


def _printable(settings: Settings, text: str, *, cut: int = 0) -> str:
    """Mask an echoed key, bound the length, and keep control characters out of logs and terminals."""
    masked = text.replace(settings.api_key, "***")
    if _shows_key(settings, masked):
        return "(not shown: it repeats the API key)"
    shown = masked[: max(0, min(len(masked) - cut, _SNIPPET_CHARS))]
    return "".join(c if c.isprintable() else " " for c in shown)


def _shows_key(settings: Settings, text: str) -> bool:
    """Whether the key can be read off a text, also where JSON, HTML or a URL writes some characters otherwise."""
    if settings.api_key in text:
        return True
    if not re.search(r"[\\&%]", text):
        # Nothing is written otherwise; bulk runs judge many a plain refusal.
        return False
    # Imported late: its tables are slow to load.
    from html import unescape

    plain = re.sub(_JSON_ESCAPE, lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)
    return any(settings.api_key in form for form in (plain, unescape(text), unquote(text)))


def _readable(settings: Settings, operation: Operation[Any], body: bytes) -> dict[str, Any]:
    """Return what can be saved of an answer that is otherwise not what the API documents."""
    if not operation.saves:
        return {}
    # More lenient than the decoder that refused it, and needed for nothing else.
    import json

    try:
        plain = json.loads(body.decode(errors="replace"), parse_float=str)
    except (ValueError, RecursionError):
        return {}
    given = plain if isinstance(plain, dict) else {}
    saved = {name: read(given.get(name)) for name, read in operation.saves.items()}
    return {name: value for name, value in saved.items() if value is not None and not _shows_key(settings, str(value))}
