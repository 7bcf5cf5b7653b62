"""The job around a bulk refresh: look users up, keep what they own, tell what changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import asdict, frozen

from phygitals_async.cli._client import Connection, connects
from phygitals_async.cli._endings import Ending, Exit, go_on_with, say
from phygitals_async.cli._ids import can_be_read_twice, count_ids, ids_option, read_ids
from phygitals_async.cli._output import json_option, print_json, print_table
from phygitals_async.cli._progress import Meter
from phygitals_async.cli._stores import store_at, store_option
from phygitals_async.errors import AuthenticationError, StoreError, StoreFull, StoreUnavailable

if TYPE_CHECKING:
    from phygitals_async.refresh import RefreshReport, Run, Store


@frozen
class _Wish:
    """What to refresh, and how.

    Attributes:
        file: Where the ids are; None for the users the store knows.
        run: The name of the run, or None.
        resume: Whether to go on with a run that has not finished; None for the usual, which is to do so.
        limit: The most lookups in flight.
        rate: The most requests per second, or None.
        patience: Seconds that an outage may last.
        on: The address of a Dask scheduler, or None to look users up here.
    """

    file: str | None
    run: str | None
    resume: bool | None
    limit: int
    rate: float | None
    patience: float
    on: str | None


@click.command()
@ids_option
@store_option
@click.option("--run", help="A name for the run. If the last run has it already, this goes on with that one.")
@click.option(
    "--resume/--new",
    default=None,
    help="Go on with a run of these users that has not finished, as is usual, or begin another.",
)
@click.option("--limit", type=click.IntRange(min=1), default=64, show_default=True, help="The most lookups in flight.")
@click.option(
    "--rate",
    type=float,
    help="The most requests per second of all who share the store; else the pace is learnt.",
)
@click.option(
    "--patience", type=float, default=300.0, show_default=True, metavar="SECONDS", help="How long an outage may last."
)
@click.option(
    "--on",
    metavar="ADDRESS",
    help="Of a Dask scheduler, whose workers do it. They take the key and where to send it from their own environment.",
)
@json_option
@connects
def refresh(connection: Connection, place: str, as_json: bool, **wish: Any) -> int:
    """Look users up, and keep what they own and what changed.

    Without --ids it asks for the users that the store knows. However a run ends, the same command goes on with it:
    nobody is asked twice, and nothing is told twice.
    """
    kept = f"what was committed is kept, go on with: {_again()}"
    told: list[RefreshReport] = []
    wanted = _Wish(**wish)
    if wanted.on is not None:
        _check_that_workers_can(connection)
    from phygitals_async.cli._signals import run_until_interrupted

    store = store_at(place)
    try:
        report = run_until_interrupted(_refresh(connection, store, wanted, told), f"phygitals: interrupted; {kept}")
    except KeyboardInterrupt:
        msg = f"interrupted; {kept}"
        raise Ending(msg, Exit.INTERRUPTED) from None
    except StoreError as error:
        if not told and not isinstance(error, StoreFull | StoreUnavailable):
            # It is no store that a run could be gone on with, or another run has it.
            raise
        msg = f"{error}; {kept}"
        raise Ending(msg, Exit.INTERRUPTED) from None
    _show(report, as_json=as_json)
    if report.stopped_by is not None:
        is_key = isinstance(report.stopped_by, AuthenticationError)
        msg = f"{report.stopped_by}; {kept}"
        raise Ending(msg, Exit.KEY_REFUSED if is_key else Exit.INTERRUPTED)
    for failure in report.failures[:1]:
        say(f"{failure.key}: {failure.error}")
        by_name = () if wanted.run else ("--run", report.run.name)
        say(f"{report.failed:,} failed; ask for them again with: {_again(*by_name)}")
    return Exit.FAILED if report.failed else Exit.DONE


def _again(*more: str) -> str:
    """Return the command that goes on."""
    return go_on_with(*(argument for argument in click.get_current_context().obj if argument != "--new"), *more)


async def _refresh(connection: Connection, store: Store, wish: _Wish, told: list[RefreshReport]) -> RefreshReport:
    from phygitals_async import PhygitalsClient
    from phygitals_async.refresh import Budget
    from phygitals_async.refresh import refresh as refresh_users

    total, keys = await _whom(store, wish.file)
    last = next(iter(await store.runs(1)), None)

    def note(report: RefreshReport) -> None:
        if not told and wish.run is None:
            _say_which(last, report.run, wish.resume)
        told[:] = [report]
        meter.show(report.asked + report.skipped, report.failed, skipped=report.skipped)

    try:
        with Meter(total) as meter:
            options: dict[str, Any] = {
                "run": wish.run,
                "resume": wish.resume is not False,
                "limit": wish.limit,
                "patience": wish.patience,
                "on_commit": note,
            }
            if wish.on is not None:
                options |= {"on": wish.on, "deadline": connection.deadline, "rate": wish.rate}
                with connection.told():
                    return await refresh_users(PhygitalsClient, keys, store, **options)
            async with connection.open_async(rate=None if wish.rate is None else Budget(store, wish.rate)) as api:
                return await refresh_users(api, keys, store, **options)
    finally:
        await store.aclose()


def _say_which(last: Run | None, run: Run, resume: bool | None) -> None:
    """Say which run this is where one may think that it is another."""
    if resume is False or (last is not None and last.number == run.number):
        return
    if last is not None and last.finished_at is None:
        say(f"the run {last.name} was begun with other users, and is left unfinished; this is a new one, {run.name}")
    elif resume:
        say(f"there is no unfinished run to go on with; this is a new one, {run.name}")


def _check_that_workers_can(connection: Connection) -> None:
    """Refuse options of the client that is made here.

    Raises:
        UsageError: One of them is given.
    """
    for option, value in {
        "--environment": connection.environment,
        "--base-url": connection.base_url,
        "--verbose": connection.verbose or None,
    }.items():
        if value is not None:
            msg = f"{option} does not go with --on: each worker has a client of its own, set up by its environment."
            raise click.UsageError(msg)


async def _whom(store: Store, file: str | None) -> tuple[int | None, Iterator[str] | Path | None]:
    if file is not None:
        return count_ids(file), Path(file) if can_be_read_twice(file) else read_ids(file)
    if not (users := await store.user_count()):
        await store.aclose()
        msg = "the store knows no users yet: name a file with their ids by --ids."
        raise click.UsageError(msg)
    return users, None


def _show(report: RefreshReport, *, as_json: bool) -> None:
    if as_json:
        # By hand: a model leaves out what is its default.
        facts = {name: value for name, value in asdict(report.run, recurse=False).items() if name != "failed"}
        stopped = report.stopped_by
        counts = {"asked": report.asked, "skipped": report.skipped, "failed": report.failed}
        failures = [{"user_id": failure.key, "error": failure.error} for failure in report.failures]
        print_json({**facts, **counts, "failures": failures, "resumable": report.resumable, "stopped_by": stopped})
        return
    run = report.run
    rows: list[tuple[str, object]] = [
        ("users known", f"{run.known:,}"),
        ("users unknown", f"{run.unknown:,}"),
        ("users with changes", f"{run.changed:,}"),
        ("changes", f"{run.changes:,}"),
        ("asked just now", f"{report.asked:,}"),
        ("asked before", f"{report.skipped:,}"),
        ("failed", f"{report.failed:,}"),
    ]
    print_table(("run", run.name), rows, right=(run.name,))
