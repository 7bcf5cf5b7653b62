"""What transports around transports need: recording, caching, tracing and fault injection are made of it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api_key import ApiKey, mask_key
from phygitals_async.transport import Request, Transport

__all__ = ["METHODS", "Wrapper", "api_key_of", "before_sending", "mask", "operation_of"]

METHODS: Final[Mapping[str, str]] = {operation.name: operation.method for operation in OPERATIONS}
"""The HTTP method of each operation, by the name of the client method that makes the request."""


class Wrapper:
    """The part of a transport around a transport that is always the same; `send` is left to write.

    Args:
        inner: What sends the requests. It is closed together with the wrapper.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    @property
    def is_open(self) -> bool:
        """Whether the inner transport holds something that must be closed, as far as it says so."""
        return bool(getattr(self._inner, "is_open", False))


@functools.cache
def _operations() -> re.Pattern[str]:
    # Base URL and path prefix can be anything, so a path is known by its end.
    ends = (
        f"(?P<{one.name}>{one.method} .*{'[^/]+'.join(re.escape(piece) for piece, _ in one.segments)})"
        for one in OPERATIONS
    )
    return re.compile("|".join(ends))


def operation_of(request: Request) -> str | None:
    """Return the name of the client method that makes such a request, or None where there is none."""
    found = _operations().fullmatch(f"{request.method} {request.url.partition('?')[0]}")
    return None if found is None else found.lastgroup


def api_key_of(request: Request) -> ApiKey:
    """Return the API key in the headers of a request, empty if there is none; its repr hides it."""
    return ApiKey(next((value for name, value in request.headers.items() if name.lower() == "x-api-key"), ""))


def mask(request: Request, text: str) -> str:
    """Return a text in which the API key of a request cannot be read, also where JSON, HTML or a URL escape it."""
    key = api_key_of(request)
    return mask_key(key, text) if key else text


@contextmanager
def before_sending(request: Request) -> Iterator[None]:
    """Do something before a request is handed on: where that fails or is cancelled, the request was never sent."""
    try:
        yield
    except BaseException:
        request.delivery.failed = True
        raise
