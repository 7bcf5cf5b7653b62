"""What a sandbox held at one moment, to go back to."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Self

import attrs
from attrs import field, frozen

from phygitals_async.sandbox.catalogue import PackStock
from phygitals_async.sandbox.ledger import Ledger
from phygitals_async.sandbox.options import SandboxOptions

# What a ledger has from its sandbox.
_GIVEN = ("clock", "rng", "ids", "options")


@frozen(eq=False)
class Snapshot:
    """Made by `Sandbox.snapshot`, used by `Sandbox.restore`; nothing that happens later changes it."""

    stocks: Mapping[str, PackStock] = field(repr=False)
    ahead: timedelta
    options: SandboxOptions = field(repr=False)
    # One text for all of it, in which each holding stays one and the same thing wherever it is named.
    _state: bytes = field(repr=False)

    @classmethod
    def of(cls, ledger: Ledger, stocks: Mapping[str, PackStock], ahead: timedelta) -> Self:
        """Return what these hold now."""
        held = {a.alias: getattr(ledger, a.name) for a in attrs.fields(Ledger) if a.name not in _GIVEN}
        return cls(dict(stocks), ahead, copied(ledger.options), pickle.dumps((held, ledger.rng.getstate())))

    def ledger(self, clock: Callable[[], datetime], rng: random.Random, ids: random.Random) -> Ledger:
        """Return a ledger that holds it, and set `rng` to where it stood; `ids` goes on."""
        held: dict[str, Any]
        held, chance = pickle.loads(self._state)  # noqa: S301 - written above, and it never left this process.
        rng.setstate(chance)
        return Ledger(clock, rng, ids, copied(self.options), **held)


def copied(options: SandboxOptions) -> SandboxOptions:
    """Return a copy of options, of which nothing changes with them."""
    return attrs.evolve(options, unshippable=set(options.unshippable))
