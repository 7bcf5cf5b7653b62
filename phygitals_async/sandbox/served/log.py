"""The requests that a served sandbox answered lately. No key can be read in what is shown of them."""

from __future__ import annotations

import re
import shlex
from collections import deque
from datetime import datetime
from typing import Final

import msgspec
from attrs import define

from phygitals_async.sandbox.records import Refused
from phygitals_async.sandbox.wire import path_and_query
from phygitals_async.transport import Request
from phygitals_async.wrapping import api_key_of, mask

KEPT: Final = 500
# Of a body; no request of the documents comes near it.
_BODY_KEPT: Final = 16 * 1024
# By the method, and whether there is a body.
_FLAGS: Final = {("GET", False): [], ("HEAD", False): ["-I"]}
# Unless told not to, curl takes brackets for a pattern of many addresses, and leaves out segments of dots.
_URL_FLAGS: Final = (
    ("-g", re.compile(r"[\[\]{}]")),
    ("--path-as-is", re.compile(r"/(\.|%2e){1,2}([/?]|$)", re.IGNORECASE)),
)


@define(eq=False)
class Entry:
    """One request and what came of it.

    Attributes:
        number: Counted from 1.
        at: When it came, UTC, in the sandbox's time.
        request: The request, its key included: show it by the properties only.
        operation: The client method that makes such a request, or None.
        fault: What went wrong on purpose, in words, or an empty text.
        status: What was answered, or None.
        answer: The beginning of the answer's body.
        milliseconds: How long it took; None while it is under way.
    """

    number: int
    at: datetime
    request: Request
    operation: str | None
    fault: str = ""
    status: int | None = None
    answer: bytes = b""
    milliseconds: float | None = None

    @property
    def outcome(self) -> str:
        """What came of it: its status, `lost`, or `under way`."""
        if self.status is not None:
            return str(self.status)
        return "under way" if self.milliseconds is None else "lost"

    @property
    def target(self) -> str:
        """Its path and query."""
        path, query = path_and_query(self.request.url)
        return mask(self.request, f"{path}?{query}" if query else path)

    @property
    def request_body(self) -> str:
        """Its body, JSON laid out."""
        return mask(self.request, _text(self.request.body or b""))

    @property
    def answer_body(self) -> str:
        """The answer's body, JSON laid out."""
        text = mask(self.request, _text(self.answer))
        return text if len(self.answer) <= _BODY_KEPT else text[:_BODY_KEPT]

    @property
    def curl(self) -> str:
        """A command that makes the same request again; the key is taken from the shell's `PHYGITALS_API_KEY`."""
        method = self.request.method
        # With -I, curl sends none.
        body = b"" if method == "HEAD" else self.request.body or b""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            return "# its body is no text"
        # By itself, curl asks with GET, or with POST where there is a body.
        words = ["curl", *_FLAGS.get((method, bool(text)), ["-X", shlex.quote(method)])]
        words += [flag for flag, needs_it in _URL_FLAGS if needs_it.search(self.request.url)]
        if api_key_of(self.request):
            words.append('-H "X-API-Key: $PHYGITALS_API_KEY"')
        sent = {name.lower(): value for name, value in self.request.headers.items()}
        if "content-type" in sent:
            words.append("-H " + shlex.quote(f"Content-Type: {sent['content-type']}"))
        elif text:
            words.append("-H Content-Type:")
        if text:
            words.append("--data-raw " + shlex.quote(text))
        return mask(self.request, " ".join([*words, shlex.quote(self.request.url)]))


class RequestLog:
    """The last 500 requests."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self.count = 0

    def enter(self, at: datetime, request: Request, operation: str | None) -> Entry:
        """Write a request down; what comes of it is written into the entry."""
        self.count += 1
        entry = Entry(self.count, at, request, operation)
        self._entries.append(entry)
        return entry

    def latest(self, limit: int, after: int = 0) -> list[Entry]:
        """Return the last entries, the newest first, of those whose number is above `after`."""
        newest: list[Entry] = []
        for entry in reversed(self._entries):
            if entry.number <= after or len(newest) == limit:
                break
            newest.append(entry)
        return newest

    def find(self, number: str) -> Entry:
        """Return an entry.

        Raises:
            Refused: It is not kept any more, or never was.
        """
        for entry in self._entries:
            if str(entry.number) == number:
                return entry
        raise Refused(404, "This request is not kept any more")

    def clear(self) -> None:
        """Forget the entries. Numbers go on."""
        self._entries.clear()


def beginning(body: bytes) -> bytes:
    """Return as much of an answer's body as is kept: more than is shown, since a key may lie across the cut."""
    return body[: 2 * _BODY_KEPT]


def _text(body: bytes) -> str:
    try:
        return msgspec.json.format(body, indent=2).decode() if body else ""
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode(errors="replace")
