"""A transport around a transport that writes down what was asked and answered."""

from __future__ import annotations

import itertools
import json
from os import PathLike
from pathlib import Path
from typing import Any

from phygitals_async import ConfigurationError, PhygitalsError, Request, Response, Transport, TransportError
from phygitals_async.observer import logger
from phygitals_async.wrapping import Wrapper
from phygitals_transports import cassettes


class RecordingTransport(Wrapper):
    """Appends each request, with its answer or error, to a cassette, a file that `ReplayTransport` answers from.

    A line is written in one piece when the answer is there, by the task that asked. The API key is in none, however the
    server wrote it: where it was escaped, the text that held it is left out. But names, addresses and ids are. A
    request that is cancelled, or that a deadline ends, is not recorded.

    Args:
        inner: What sends the requests; closed together with this.
        path: The cassette. Lines are added to one that exists.

    Raises:
        ConfigurationError: The cassette cannot be written, or its last line is cut short; or, by `send`, a line could
            not be written before, so the recording has a gap. The answer that was due then came out all the same.
    """

    def __init__(self, inner: Transport, path: str | PathLike[str]) -> None:
        super().__init__(inner)
        self._path = Path(path)
        self._gap: str | None = None
        try:
            with self._path.open("ab+", buffering=0) as file:
                file.seek(0)
                said = file.read()
        except OSError as error:
            msg = f"the cassette {path} cannot be written: {error.strerror}"
            raise ConfigurationError(msg) from None
        if said and not said.endswith(b"\n"):
            msg = f"the last line of the cassette {path} is cut short"
            raise ConfigurationError(msg)
        self._numbers = itertools.count(said.count(b"\n") + 1)

    async def send(self, request: Request) -> Response:
        """Send `request` and write down what comes of it; see `phygitals_async.Transport`."""
        if self._gap is not None:
            msg = f"the recording in {self._path} has a gap: {self._gap}"
            raise ConfigurationError(msg)
        number = next(self._numbers)
        try:
            response = await self._inner.send(request)
        except Exception as error:
            # Whatever else the library raises says nothing of the network, such as that the transport was closed.
            if isinstance(error, TransportError) or not isinstance(error, PhygitalsError):
                self._write(number, request, error)
            raise
        self._write(number, request, response)
        return response

    def _write(self, number: int, request: Request, reply: Response | Exception) -> None:
        """Write a line; what goes wrong here must not hide what came of a purchase."""
        try:
            line = self._line(number, request, reply)
            with self._path.open("ab", buffering=0) as file:
                # In one call, which the system does not mix with those of others.
                if file.write(line) != len(line):
                    self._note_gap("a line was cut short")
        except Exception as error:  # noqa: BLE001 - see above; the next request is refused.
            self._note_gap(type(error).__name__)

    def _line(self, number: int, request: Request, reply: Response | Exception) -> bytes:
        said: dict[str, Any] = {"number": number, **cassettes.asked(request)}
        said |= cassettes.answered(request, reply) if isinstance(reply, Response) else cassettes.failed(request, reply)
        return json.dumps(said).encode() + b"\n"

    def _note_gap(self, why: str) -> None:
        self._gap = why
        logger.error("the recording in %s has a gap: %s", self._path, why)
