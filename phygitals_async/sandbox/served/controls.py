"""What a served sandbox can be told to do: its clock, options, faults, log and snapshots, one method for each route."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import anyio
import anyio.lowlevel
import attrs
import msgspec

from phygitals_async.sandbox.options import RateLimit
from phygitals_async.sandbox.population import populating
from phygitals_async.sandbox.records import Refused
from phygitals_async.sandbox.sandbox import Sandbox
from phygitals_async.sandbox.served import bodies
from phygitals_async.sandbox.served.clock import MovableClock, Standing
from phygitals_async.sandbox.served.faults import Fault, Faults, may_follow_acting
from phygitals_async.sandbox.served.log import Entry, RequestLog
from phygitals_async.sandbox.snapshot import Snapshot, copied
from phygitals_async.wrapping import METHODS

# The snapshot that is made when serving starts.
START: Final = "start"
# How many of the items of a served sandbox cannot be sold back any more, from the start.
EXPIRED: Final = 0.06

# With more, prices could become larger than an amount may be.
_MOST_FACTOR: Final = 1000
# Windows and stages still have to end in years that there are.
_YEARS: Final = range(2000, 9000)


@attrs.frozen(eq=False)
class _Kept:
    sandbox: Snapshot
    at: datetime
    clock: Standing
    faults: Sequence[Fault]
    users: int


class Controls:
    """Moves a sandbox's time, changes its options, and takes it back to an earlier state."""

    def __init__(self, sandbox: Sandbox, clock: MovableClock, faults: Faults, log: RequestLog) -> None:
        self.sandbox = sandbox
        self.clock = clock
        self.faults = faults
        self.log = log
        self._snapshots: dict[str, _Kept] = {}
        self.take_snapshot(name=START)

    def get_options(self) -> bodies.OptionsShown:
        """Show the options."""
        options = self.sandbox.options
        plain = attrs.asdict(options, recurse=False)
        limit = options.rate_limit
        return bodies.OptionsShown(
            **{
                **plain,
                "order_stage": None if options.order_stage is None else options.order_stage.total_seconds(),
                "countries": None if options.countries is None else sorted(options.countries),
                "suggestion": None if options.suggestion is None else dict(options.suggestion),
                "unshippable": sorted(options.unshippable),
                "rate_limit": None if limit is None else bodies.Rate(**attrs.asdict(limit)),
            }
        )

    def set_options(self, *, body: bodies.OptionsPatch) -> bodies.OptionsShown:
        """Change options."""
        changes = {
            name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not msgspec.UNSET
        }
        bodies.checked("price_factor", changes.get("price_factor", Decimal(1)), _MOST_FACTOR)
        readers: dict[str, Any] = {
            "order_stage": lambda seconds: timedelta(seconds=seconds),
            "countries": frozenset,
            "unshippable": set,
            "rate_limit": _rate_limit,
        }
        for name in changes.keys() & readers:
            if changes[name] is not None:
                changes[name] = readers[name](changes[name])
        self.sandbox.options = attrs.evolve(self.sandbox.options, **changes)
        return self.get_options()

    def reset_options(self) -> bodies.OptionsShown:
        """Set every option to what it was at the start: as the vendor's sandbox, but for what the command line said."""
        self.sandbox.options = copied(self._snapshots[START].sandbox.options)
        return self.get_options()

    def get_clock(self) -> bodies.ClockState:
        """Show the sandbox's time."""
        return bodies.ClockState(now=self.sandbox.now(), frozen=self.clock.standing.frozen is not None)

    def set_clock(self, *, body: bodies.ClockChange) -> bodies.ClockState:
        """Move the sandbox's time, stop it, or let it go on."""
        at = self.clock() if body.at is None else body.at.astimezone(UTC)
        is_frozen = self.clock.standing.frozen is not None if body.frozen is None else body.frozen
        there = at + timedelta(seconds=body.advance)
        if there.year not in _YEARS:
            raise Refused(400, f"the year must be {_YEARS[0]} to {_YEARS[-1]}")
        self.clock.move(there, is_frozen=is_frozen)
        return self.get_clock()

    def list_faults(self) -> list[bodies.FaultShown]:
        """List what is armed."""
        return [_shown_fault(fault) for fault in self.faults.armed]

    def add_fault(self, *, body: bodies.NewFault) -> bodies.FaultShown:
        """Let requests go wrong from now on."""
        if body.operation is not None and body.operation not in METHODS:
            raise Refused(400, f"operation must be one of {', '.join(METHODS)}, or null for any")
        if body.kind == "edge" and body.after:
            raise Refused(400, "an edge answers before the API sees the request, so not after acting")
        if body.kind == "status" and body.after and not may_follow_acting(body.status, body.operation):
            msg = f"after acting, {body.status} would lie: clients take it for “nothing was done”"
            raise Refused(400, f"{msg}. Choose 408 or 5xx, an operation that only reads, or “before”")
        fault = self.faults.add(
            body.kind, body.operation, after=body.after, times=body.times, seconds=body.seconds, status=body.status
        )
        return _shown_fault(fault)

    def remove_fault(self, number: str) -> bodies.Done:
        """Disarm one."""
        found = [fault for fault in self.faults.armed if str(fault.number) == number]
        if not found:
            raise Refused(404, "No such fault")
        self.faults.armed.remove(found[0])
        return bodies.Done()

    def remove_faults(self) -> bodies.Done:
        """Disarm all."""
        self.faults.armed.clear()
        return bodies.Done()

    def list_requests(self, *, query: bodies.Since) -> list[bodies.RequestShown]:
        """List the requests that were answered lately, the newest first."""
        return [_shown_entry(entry) for entry in self.log.latest(query.limit, query.after)]

    def clear_requests(self) -> bodies.Done:
        """Forget the requests so far."""
        self.log.clear()
        return bodies.Done()

    def list_snapshots(self) -> list[bodies.SnapshotShown]:
        """List the snapshots."""
        return [bodies.SnapshotShown(name=name, at=kept.at, users=kept.users) for name, kept in self._snapshots.items()]

    def take_snapshot(self, name: str) -> bodies.SnapshotShown:
        """Keep all there is now under a name, in the place of what had that name; `start` stays what it is."""
        if name == START and START in self._snapshots:
            raise Refused(409, f"“{START}” is what a reset goes back to: take another name")
        held = self.sandbox.snapshot()
        users = len(self.sandbox.ledger.users)
        kept = _Kept(held, self.clock(), self.clock.standing, self.faults.copies(), users)
        self._snapshots[name] = kept
        return bodies.SnapshotShown(name=name, at=kept.at, users=users)

    def restore_snapshot(self, name: str) -> bodies.Done:
        """Go back to what a snapshot holds, and to how far the clock was moved."""
        kept = self._kept(name)
        self.sandbox.restore(kept.sandbox)
        self.clock.stand(kept.clock)
        self.faults.armed = [attrs.evolve(fault) for fault in kept.faults]
        return bodies.Done()

    def remove_snapshot(self, name: str) -> bodies.Done:
        """Forget a snapshot, but not `start`."""
        self._kept(name)
        if name == START:
            raise Refused(409, f"“{START}” is what a reset goes back to, so it stays")
        del self._snapshots[name]
        return bodies.Done()

    def wipe(self) -> bodies.Done:
        """Forget users, purchases, quotes and orders, as a restart of the vendor's sandbox does (S1)."""
        self.sandbox.wipe()
        return bodies.Done()

    async def seed(self, *, body: bodies.Seed) -> bodies.Done:
        """Add users with items of every kind, some of which cannot be sold back any more.

        Very many take seconds, in which requests are answered all the same.
        """
        ledger = self.sandbox.ledger
        for _ in populating(self.sandbox, body.users, seed=body.seed, expired=EXPIRED):
            await anyio.lowlevel.checkpoint()
            if self.sandbox.ledger is not ledger:
                raise Refused(409, "The sandbox was wiped, or went back to a snapshot, while users were added")
        return bodies.Done()

    def _kept(self, name: str) -> _Kept:
        if name not in self._snapshots:
            raise Refused(404, "No such snapshot")
        return self._snapshots[name]


def _rate_limit(rate: bodies.Rate) -> RateLimit:
    burst = {} if rate.burst is None else {"burst": rate.burst}
    return RateLimit(rate.per_second, **burst, retry_after=rate.retry_after)


def _shown_fault(fault: Fault) -> bodies.FaultShown:
    return bodies.FaultShown(**attrs.asdict(fault), text=fault.text)


def _shown_entry(entry: Entry) -> bodies.RequestShown:
    return bodies.RequestShown(
        number=entry.number,
        at=entry.at,
        method=entry.request.method,
        target=entry.target,
        operation=entry.operation,
        outcome=entry.outcome,
        milliseconds=entry.milliseconds,
        fault=entry.fault,
        request_body=entry.request_body,
        answer_body=entry.answer_body,
        curl=entry.curl,
    )
