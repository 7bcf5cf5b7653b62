"""The client that commands use, and the options that set it up."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import click
from attrs import evolve, frozen

from phygitals_async import PhygitalsClient as AsyncClient
from phygitals_async import Request, Response, Transport
from phygitals_async.cli._endings import go_on_with, say
from phygitals_async.cli._stores import journal_option
from phygitals_async.config import Settings, resolve_settings
from phygitals_async.observer import logger
from phygitals_async.refresh import Budget, Store, open_store
from phygitals_async.sync import PhygitalsClient
from phygitals_async.wrapping import Wrapper


@frozen
class Connection:
    """How to reach the API, as the options and the environment say.

    Attributes:
        environment: `production` or `sandbox`; else the environment variable, else what the key tells.
        base_url: Else the environment variable, else the environment's.
        deadline: Seconds each call may take.
        verbose: Whether each attempt is told on stderr.
        journal: The address of the store that calls which move money or goods are written down in, or None.
    """

    environment: str | None
    base_url: str | None
    deadline: float
    verbose: bool
    journal: str | None = None

    def settings(self) -> Settings:
        """Return where requests go, and the key.

        Raises:
            ConfigurationError: A setting is missing or malformed.
            UsageError: There is no key.
        """
        if not os.environ.get("PHYGITALS_API_KEY"):
            msg = (
                "no API key: set PHYGITALS_API_KEY. (phygitals sandbox serves an API that needs none of the vendor's.)"
            )
            raise click.UsageError(msg)
        return resolve_settings(None, self.environment, self.base_url, "/api/v1")

    def command(self, name: str, *arguments: str, **options: str | None) -> str:
        """Return another command for the same environment, as one would type it."""
        given = {"environment": self.environment, "base-url": self.base_url, **options}
        words = [word for option, value in given.items() if value is not None for word in (f"--{option}", value)]
        # After it, what begins with a dash is no option.
        rest = ["--"] if any(argument.startswith("-") for argument in arguments) else []
        return go_on_with(name, *words, *rest, *arguments)

    @property
    def hint(self) -> str:
        """What to say beside how to find out by hand what became of a call."""
        if self.journal is None:
            return ""
        return f" Or let it be looked up: {self.command('reconcile', journal=self.typed_journal)}"

    @property
    def typed_journal(self) -> str | None:
        """The journal as a command has to name it: not at all where the environment does."""
        return None if self.journal == os.environ.get("PHYGITALS_JOURNAL") else self.journal

    def arguments(self) -> dict[str, Any]:
        """Return what a client takes, but for its transport."""
        self.settings()
        return {"environment": self.environment, "base_url": self.base_url, "deadline": self.deadline}

    @contextmanager
    def open(self, *, rate: float | None = None) -> Iterator[PhygitalsClient]:
        """Give a client while the block runs, which sends at most `rate` requests per second."""
        journal = None if self.journal is None else open_store(self.journal)
        sends = transport() if journal is None else _ClosingToo(transport(), journal)
        with self.told(), PhygitalsClient(sends, **self.arguments(), rate=rate, journal=journal) as api:
            yield api

    @asynccontextmanager
    async def open_async(self, *, rate: Budget | None = None) -> AsyncIterator[AsyncClient]:
        """Give an async client while the block runs, which shares a rate if there is one."""
        with self.told():
            async with AsyncClient(transport(), **self.arguments(), rate=rate) as api:
                yield api

    @contextmanager
    def told(self) -> Iterator[None]:
        """Let the library's log lines go to stderr while the block runs: errors, or all of them."""
        handler = _Saying(logging.DEBUG if self.verbose else logging.ERROR)
        level = logger.level
        logger.addHandler(handler)
        if self.verbose:
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Say it in one line, without a traceback."""
        say(record.getMessage())


class Remembering(Wrapper):
    """Remembers the last answer: a status that is an error brings a header along too.

    Attributes:
        last: The last answer, or None.
    """

    last: Response | None = None

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        self.last = await self._inner.send(request)
        return self.last


class _ClosingToo(Wrapper):
    """Closes a store with the transport, in the event loop that both belong to."""

    def __init__(self, inner: Transport, store: Store) -> None:
        super().__init__(inner)
        self._store = store

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        return await self._inner.send(request)

    async def aclose(self) -> None:
        """Close both."""
        try:
            await super().aclose()
        finally:
            await self._store.aclose()


def transport() -> Transport:
    """Return a transport that uses the proxies of the environment, as programs of the command line do."""
    from phygitals_transports import AiohttpTransport

    return AiohttpTransport(trust_env=True)


def connects(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that set its client up, as its argument `connection`."""

    @click.option(
        "--environment",
        type=click.Choice(["production", "sandbox"]),
        help="Default: PHYGITALS_ENVIRONMENT, else what the key tells.",
    )
    @click.option("--base-url", metavar="URL", help="Default: PHYGITALS_BASE_URL, else the environment's.")
    @click.option(
        "--deadline", type=float, default=30.0, show_default=True, metavar="SECONDS", help="For each call in all."
    )
    @click.option("-v", "--verbose", is_flag=True, help="Tell of each attempt on stderr.")
    @functools.wraps(command)
    def with_connection(
        *args: Any, environment: str | None, base_url: str | None, deadline: float, verbose: bool, **others: Any
    ) -> Any:
        return command(*args, connection=Connection(environment, base_url, deadline, verbose), **others)

    return with_connection


def records(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that moves money or goods the option that names a journal; goes below `connects`."""

    @journal_option()
    @functools.wraps(command)
    def with_journal(*args: Any, connection: Connection, journal: str | None, **others: Any) -> Any:
        return command(*args, connection=evolve(connection, journal=journal), **others)

    return with_journal
