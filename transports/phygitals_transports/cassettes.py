"""What a cassette holds: a line of JSON for each request, with its answer or its error, and without the API key."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from phygitals_async import ConfigurationError, Request, Response, Sent, TransportError, errors
from phygitals_async.wrapping import mask

# What was sent: method, path with query, and body as JSON writes it.
Asked = tuple[str, str, str]


@frozen
class Exchange:
    """One line.

    Attributes:
        number: When the request was sent, counted in requests.
        asked: What was sent.
        reply: The answer, or what makes the error.
    """

    number: int
    asked: Asked
    reply: Response | tuple[type[TransportError], str, Sent]


def asked(request: Request) -> dict[str, Any]:
    """Return what a line says of a request. Its headers are left out: no replay needs them, and the key is one."""
    return {"method": request.method, "url": mask(request, request.url), "body": _without_key(request, request.body)}


def answered(request: Request, response: Response) -> dict[str, Any]:
    """Return what a line says of an answer."""
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        if name.lower() != "set-cookie":
            headers.setdefault(mask(request, name), mask(request, value))
    return {"status": response.status, "headers": headers, "answer": _without_key(request, response.body)}


def failed(request: Request, error: Exception) -> dict[str, Any]:
    """Return what a line says of an error: the class that the library knows, and whether the request was sent."""
    sent = request.delivery.sent
    if not isinstance(error, TransportError):
        # As the client has it: the text may hold headers.
        return {"error": "TransportError", "text": f"the transport failed: {type(error).__name__}", "sent": sent.name}
    if sent is not Sent.NEVER and not (request.delivery.started and error.sent is Sent.NEVER):
        sent = error.sent
    known = next(cls for cls in type(error).__mro__ if cls.__module__ == errors.__name__)
    return {"error": known.__name__, "text": mask(request, error.text), "sent": sent.name}


def read(path: Path) -> list[Exchange]:
    """Return the exchanges in a cassette.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        msg = f"the cassette {path} cannot be read: {error.strerror}"
        raise ConfigurationError(msg) from None
    exchanges = []
    for number, line in enumerate(lines, 1):
        try:
            exchanges.append(_exchange(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError):
            msg = f"the cassette {path} holds no exchange in line {number}"
            raise ConfigurationError(msg) from None
    return exchanges


def key_of(said: Mapping[str, Any]) -> Asked:
    """Return what two requests have in common that are the same, wherever the server is."""
    target = said["url"].partition("://")[2].partition("/")[2]
    return said["method"], f"/{target}", json.dumps(said["body"])


def _exchange(said: Mapping[str, Any]) -> Exchange:
    reply: Response | tuple[type[TransportError], str, Sent]
    if "error" in said:
        cls = getattr(errors, said["error"])
        if not issubclass(cls, TransportError):
            raise TypeError
        reply = cls, said["text"], Sent[said["sent"]]
    else:
        answer = said["answer"]
        body = base64.b64decode(answer["base64"]) if isinstance(answer, dict) else answer.encode()
        reply = Response(said["status"], said["headers"], body)
    return Exchange(said["number"], key_of(said), reply)


def _without_key(request: Request, data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return mask(request, data.decode())
    except UnicodeDecodeError:
        masked = mask(request, data.decode("latin-1"))
        return {"base64": base64.b64encode(masked.encode("latin-1")).decode()}
