"""Requests from operations, and results or errors from responses. Nothing here does I/O."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar, cast
from urllib.parse import quote

import msgspec
from attrs import frozen

from phygitals_async import errors
from phygitals_async._api.headers import retry_after
from phygitals_async._api.operation import Operation
from phygitals_async._api_key import mask_key, may_show_key, shows_key
from phygitals_async._structuring.converter import PhygitalsConverter
from phygitals_async._structuring.rows import with_unreadable
from phygitals_async.config import Settings
from phygitals_async.errors import DecodeError, PhygitalsError, RedirectRefused, StatusError
from phygitals_async.models.rows import Unreadable
from phygitals_async.transport import Request, Response

T = TypeVar("T")

# The observer's, by its name: that module knows of calls, as nothing here does.
_logger: Final = logging.getLogger("phygitals_async")

_SNIPPET_CHARS: Final = 200
# An error body longer than this is no API message; it is not worth parsing.
_LONGEST_ERROR_BODY: Final = 64 * 1024

# What `quote` leaves as it is.
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9_.~-]+").fullmatch

_FAMILIES: Final[Mapping[int, type[StatusError]]] = {
    401: errors.AuthenticationError,
    403: errors.PermissionDenied,
    404: errors.NotFound,
    429: errors.RateLimited,
}


@frozen(eq=False)
class Wire:
    """Builds requests and reads responses: what settings, converter and headers are for.

    Attributes:
        settings: Where requests go, and the key.
        converter: Writes bodies and structures answers.
        headers: Headers of every request.
        keeps_unreadable: Whether an answer to a read is returned although some of its rows cannot be read.
    """

    settings: Settings
    converter: PhygitalsConverter
    headers: Mapping[str, str]
    keeps_unreadable: bool = False

    def request(self, operation: Operation[Any], arguments: Mapping[str, Any]) -> Request:
        """Build the request for an operation.

        The URL is appended together, never resolved, so the sandbox's `/_` survives (API sheet, section 1),
        and every argument in it is percent-encoded whole.

        Args:
            operation: What to ask.
            arguments: Checked: what `operation.check` returned.
        """
        url = self.settings.root
        for piece, name in operation.segments:
            url += piece + _segment(arguments[name]) if name else piece
        if operation.query:
            url += _query(operation, arguments)
        # What must not be sent twice must not leave on a connection that may be closing.
        fresh = operation.effect.is_irreversible
        if not operation.body:
            return Request(operation.method, url, dict(self.headers), fresh_connection=fresh)
        body = {field: arguments[argument.name] for field, argument in operation.body.items()}
        headers = {**self.headers, "Content-Type": "application/json"}
        return Request(operation.method, url, headers, self.converter.dumps(body), fresh_connection=fresh)

    def check_status(self, operation: Operation[Any], arguments: Mapping[str, Any], response: Response) -> None:
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
        raise self._refusal(operation, arguments, response)

    def decode(
        self,
        operation: Operation[T],
        arguments: Mapping[str, Any],
        response: Response,
        recognise: Recognise[T] | None = None,
    ) -> T:
        """Return the result in a 2xx answer, or its readable part where that is wanted.

        Raises:
            DecodeError: The body is not what the API documents, or answers another question.
            StatusError: A refusal that came as a 2xx.
        """
        if recognise is not None and (recognised := recognise(self, arguments, response.body)) is not None:
            return recognised
        memo = response.memo
        made_for = () if memo is None else (self.converter, operation, arguments)
        if memo is not None and (known := memo.recall(made_for, response.body)) is not None:
            return cast("T", known)
        try:
            result = _result(operation, arguments, self.converter.loads(response.body, operation.answer), response.body)
            if memo is not None:
                memo.keep(made_for, response.body, result)
            return result
        except DecodeError as error:
            kept = self._keep_or_refuse(operation, arguments, error, response)
            if not isinstance(kept, DecodeError):
                return kept
            failure: PhygitalsError = kept
        except StatusError as error:
            message = self._printable(error.message)
            failure = type(error)(status=response.status, message=message, snippet=self._snippet(response.body))
        # Without the frames that held the body: it may echo the key, and error reporters show locals.
        raise failure

    def can_keep(self, body: bytes) -> bool:
        """Whether a body may be kept: nobody can read the key off it."""
        return not may_show_key(self.settings.api_key, body)

    def _keep_or_refuse(
        self, operation: Operation[T], arguments: Mapping[str, Any], error: DecodeError, response: Response
    ) -> T | DecodeError:
        """Return the readable part of an answer where that is wanted, or the error for it."""
        partial = self._partial(operation, arguments, error, response.body)
        if partial is not None and self.keeps_unreadable:
            # No part of the answer: it may be personal data.
            count = len(error.partial.unreadable)
            _logger.warning("%s: unreadable rows left out of an answer: %d", operation.name, count)
            return partial
        # An error is logged, pickled and passed around as no answer is.
        if partial is not None and shows_key(self.settings.api_key, response.body.decode(errors="replace")):
            partial = None
        return DecodeError(
            error.summary,
            status=response.status,
            problems=[self._printable(problem) for problem in error.problems],
            snippet=self._snippet(response.body),
            readable=self._readable(operation, response.body),
            partial=partial,
        )

    def _partial(
        self, operation: Operation[T], arguments: Mapping[str, Any], error: DecodeError, body: bytes
    ) -> T | None:
        """Return the result in the readable part of an answer to a read, or None where there is none."""
        if error.partial is None or operation.effect.is_irreversible:
            return None
        unreadable = tuple(
            Unreadable(row.path, tuple(map(self._printable, row.problems)), mask_key(self.settings.api_key, row.raw))
            for row in error.partial.unreadable
        )
        try:
            result: T = _result(operation, arguments, with_unreadable(error.partial, unreadable), body, partial=True)
        except DecodeError:
            return None
        return result

    def _refusal(self, operation: Operation[Any], arguments: Mapping[str, Any], response: Response) -> StatusError:
        status = response.status
        body = _plain(response.body)
        about: dict[str, Any] = {
            "retry_after": retry_after(response),
            "status": status,
            "message": self._message(body),
            "snippet": self._snippet(response.body),
        }
        for refusal in operation.refusals:
            if refusal.matches(status, body):
                details = refusal.details(body, arguments) if refusal.details else {}
                shown = {k: self._printable(v) if isinstance(v, str) else v for k, v in details.items()}
                # A suggested address that holds the key is none.
                safe = {k: v for k, v in shown.items() if not shows_key(self.settings.api_key, repr(v))}
                about["text"] = self._text(operation, arguments, about, refusal.about)
                return refusal.error(**{**about, **safe})
        if status == 401:
            # A mistyped sandbox key is a production key.
            setting = f"this client is set up for {self.settings.environment}, at {self._printable(self.settings.root)}"
            about["text"] = f"{StatusError(**about)}; {setting}"
        if status == 404:
            about["text"] = self._text(operation, arguments, about)
        if 400 <= status < 500:
            return _FAMILIES.get(status, errors.BadRequest)(**about)
        return (errors.ServerError if 500 <= status < 600 else StatusError)(**about)

    def _text(
        self, operation: Operation[Any], arguments: Mapping[str, Any], about: Mapping[str, Any], name: str = ""
    ) -> str:
        """Return the text of a refusal that says what it is about, or nothing where the usual text will do."""
        names = (name,) if name else operation.path_arguments if about["status"] == 404 else ()
        if not names:
            return ""
        named = self._printable(", ".join(f"{each} {arguments[each]!r}" for each in names))
        return f"{StatusError(**about)} ({named})" + (f"; {operation.hint}" if operation.hint else "")

    def _message(self, body: Mapping[str, Any]) -> str:
        """Return the API's own sentence: `error`, else `message` (API sheet, section 5)."""
        found = (body.get("error"), body.get("message"))
        return next((self._printable(text) for text in found if isinstance(text, str) and text), "")

    def _snippet(self, body: bytes) -> str:
        head = body[:_LONGEST_ERROR_BODY].decode(errors="replace")
        # Where the body is cut, the key may be: what could be a part of it is left out.
        return self._printable(head, cut=len(self.settings.api_key) if len(body) > _LONGEST_ERROR_BODY else 0)

    def _printable(self, text: str, *, cut: int = 0) -> str:
        """Mask an echoed key, bound the length, and keep control characters out of logs and terminals."""
        masked = mask_key(self.settings.api_key, text)
        shown = masked[: max(0, min(len(masked) - cut, _SNIPPET_CHARS))]
        return "".join(c if c.isprintable() else " " for c in shown)

    def _readable(self, operation: Operation[Any], body: bytes) -> dict[str, Any]:
        """Return what can be salvaged of an answer that is otherwise not what the API documents."""
        if not operation.salvages:
            return {}
        try:
            # More lenient than the decoder that refused it.
            plain = json.loads(body.decode(errors="replace"), parse_float=str)
        except (ValueError, RecursionError):
            return {}
        given = plain if isinstance(plain, dict) else {}
        found = {name: read(given.get(name)) for name, read in operation.salvages.items()}
        key = self.settings.api_key
        return {name: value for name, value in found.items() if value is not None and not shows_key(key, str(value))}


# Whoever reads answers that were read before may know them by their bodies: it is given what decodes, the arguments and
# the body, and returns the result, or None to have it decoded.
Recognise: TypeAlias = Callable[[Wire, Mapping[str, Any], bytes], T | None]


def _segment(text: str) -> str:
    # Most ids need no quoting, and finding that out takes a third of the time that `quote` does.
    return text if _UNRESERVED(text) else quote(text, safe="")


def _result(
    operation: Operation[T], arguments: Mapping[str, Any], answer: Any, body: bytes, *, partial: bool = False
) -> T:
    if getattr(answer, "unreadable", ()) and not partial:
        # It is this library's word for what it could not read, and none of the API's.
        answer = with_unreadable(answer, ())
    result = operation.read(answer)
    if operation.echoes:
        _check_echo(operation.echoes, arguments, result, body)
    return result


def _check_echo(name: str, arguments: Mapping[str, Any], result: object, body: bytes) -> None:
    """Refuse the answer to another question, which a confused connection, proxy or cache may bring."""
    asked = arguments[name]
    # A hook of the caller's may have changed the structured one.
    if getattr(result, name, None) == asked or _plain(body, longest=len(body)).get(name) == asked:
        return
    raise DecodeError("the answer to another question", problems=[f"$.{name}: not the one asked for"])


def _query(operation: Operation[Any], arguments: Mapping[str, Any]) -> str:
    pairs = []
    for parameter, argument in operation.query.items():
        value = arguments[argument.name]
        values = value if isinstance(value, list) else [value]
        pairs += [f"{parameter}={quote(_text(one), safe='')}" for one in values if one is not None]
    return "?" + "&".join(pairs) if pairs else ""


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(body: bytes, longest: int = _LONGEST_ERROR_BODY) -> Mapping[str, Any]:
    """Return a body that is a JSON object, and nothing for any other or a longer one."""
    if len(body) > longest:
        return {}
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return plain if isinstance(plain, dict) else {}
