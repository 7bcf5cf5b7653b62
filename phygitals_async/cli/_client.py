"""The client that commands use, and the options that set it up.

As in every module with a command, what takes long to load is loaded by the functions that need it: help, completion and
what is misspelt do without.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve, frozen

from phygitals_async.cli._endings import go_on_with
from phygitals_async.cli._stores import journal_option

if TYPE_CHECKING:
    from phygitals_async import PhygitalsClient as AsyncClient
    from phygitals_async.config import Settings
    from phygitals_async.refresh import Budget
    from phygitals_async.sync import PhygitalsClient


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
        from phygitals_async.config import resolve_settings

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
        arguments = self.arguments()
        from phygitals_async.cli._transport import recorded, transport
        from phygitals_async.sync import PhygitalsClient

        sends, journal = (transport(), None) if self.journal is None else recorded(transport(), self.journal)
        with self.told(), PhygitalsClient(sends, **arguments, rate=rate, journal=journal) as api:
            yield api

    @asynccontextmanager
    async def open_async(self, *, rate: Budget | None = None) -> AsyncIterator[AsyncClient]:
        """Give an async client while the block runs, which shares a rate if there is one."""
        arguments = self.arguments()
        from phygitals_async import PhygitalsClient
        from phygitals_async.cli._transport import transport

        with self.told():
            async with PhygitalsClient(transport(), **arguments, rate=rate) as api:
                yield api

    def told(self) -> AbstractContextManager[None]:
        """Let the library's log lines go to stderr while the block runs: errors, or all of them."""
        from phygitals_async.cli._transport import logged

        return logged(verbose=self.verbose)


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
