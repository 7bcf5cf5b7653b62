"""What became of calls that move money or goods whose outcome is open."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from phygitals_async.cli._client import Connection, connects
from phygitals_async.cli._endings import Exit, say
from phygitals_async.cli._output import json_option, moment, print_json, print_table
from phygitals_async.cli._stores import existing_store, journal_option

if TYPE_CHECKING:
    from phygitals_async.journal import Finding, Journal


@click.command()
@journal_option(required=True)
@click.option("--settle", "settles", is_flag=True, help="Close what the API's present state decides.")
@click.option("--happened", multiple=True, metavar="ID", help="Close this one: you know that it happened.")
@click.option("--did-not-happen", multiple=True, metavar="ID", help="Close this one: you know that it did not.")
@json_option
@connects
def reconcile(
    connection: Connection,
    journal: str,
    settles: bool,
    happened: tuple[str, ...],
    did_not_happen: tuple[str, ...],
    as_json: bool,
) -> int:
    """Look up what became of calls whose outcome is open.

    It sends nothing that moves money or goods. The status is 1 as long as one stays undecided.
    """
    known = dict.fromkeys(happened, True) | dict.fromkeys(did_not_happen, False)
    both = sorted(set(happened) & set(did_not_happen))
    if both:
        msg = f"{both[0]} cannot have happened and not have happened."
        raise click.UsageError(msg)
    import asyncio

    findings, settled = asyncio.run(_reconcile(connection, journal, known, settles=settles))
    missing = sorted(set(known) - {finding.entry.id for finding in findings})
    if missing:
        msg = f"no open call has the id {missing[0]!r}; nothing was closed."
        raise click.UsageError(msg)
    _show(findings, settled, as_json=as_json)
    return Exit.FAILED if any(_is_undecided(one) and one.entry.id not in settled for one in findings) else Exit.DONE


async def _reconcile(
    connection: Connection, place: str, known: Mapping[str, bool], *, settles: bool
) -> tuple[Sequence[Finding], Collection[str]]:
    from phygitals_async.journal import reconcile as look_up

    store = existing_store(place)
    try:
        async with connection.open_async() as api:
            findings = await look_up(api, store)
        if set(known) <= {finding.entry.id for finding in findings}:
            return findings, await _settle(store, findings, known, settles=settles)
        return findings, ()
    finally:
        await store.aclose()


async def _settle(
    store: Journal, findings: Sequence[Finding], known: Mapping[str, bool], *, settles: bool
) -> Collection[str]:
    """Close the calls that are decided, and return their ids. What somebody knows wins."""
    from phygitals_async.journal import Verdict, settle

    settled = []
    for finding in findings:
        entry = finding.entry
        if entry.id in known:
            await settle(store, entry, happened=known[entry.id])
        elif settles and not _is_undecided(finding):
            await settle(store, entry, happened=finding.verdict is Verdict.HAPPENED)
        else:
            continue
        settled.append(entry.id)
    return settled


def _is_undecided(finding: Finding) -> bool:
    from phygitals_async.journal import Verdict

    return finding.verdict is Verdict.UNDECIDED


def _show(findings: Sequence[Finding], settled: Collection[str], *, as_json: bool) -> None:
    rows = []
    for finding in findings:
        entry, is_settled = finding.entry, finding.entry.id in settled
        if as_json:
            facts = {"id": entry.id, "operation": entry.operation, "arguments": entry.arguments}
            said = {"verdict": finding.verdict.value, "reason": finding.reason, "items": finding.items}
            print_json({**facts, "started_at": entry.started_at, **said, "settled": is_settled})
            continue
        what = ", ".join(f"{name} {value}" for name, value in entry.arguments.items())
        closed = "closed" if is_settled else "open"
        rows.append(
            (entry.id, moment(entry.started_at), entry.operation, what, finding.verdict.value, finding.reason, closed)
        )
    if rows:
        print_table(("id", "at, UTC", "call", "of", "it", "because", "entry"), rows)
    calls = "1 call was" if len(findings) == 1 else f"{len(findings):,} calls were"
    say(f"{calls} open, {len(settled):,} closed now")
