"""What a sandbox held at one moment, to go back to."""

from __future__ import annotations

import io
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self

import attrs
from attrs import field, frozen

from phygitals_async.models import Item
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
    # What makes up nearly all of it and never changes.
    _frozen: Sequence[object] = field(repr=False)

    @classmethod
    def of(cls, ledger: Ledger, stocks: Mapping[str, PackStock], ahead: timedelta) -> Self:
        """Return what these hold now."""
        held = {a.alias: getattr(ledger, a.name) for a in attrs.fields(Ledger) if a.name not in _GIVEN}
        writer = _Writer(text := io.BytesIO())
        writer.dump((held, ledger.rng.getstate()))
        return cls(dict(stocks), ahead, copied(ledger.options), text.getvalue(), writer.frozen)

    def ledger(self, clock: Callable[[], datetime], rng: random.Random, ids: random.Random) -> Ledger:
        """Return a ledger that holds it, and set `rng` to where it stood; `ids` goes on."""
        held: dict[str, Any]
        held, chance = _Reader(io.BytesIO(self._state), self._frozen).load()
        rng.setstate(chance)
        return Ledger(clock, rng, ids, copied(self.options), **held)


class _Writer(pickle.Pickler):
    def __init__(self, text: io.BytesIO) -> None:
        super().__init__(text, protocol=pickle.HIGHEST_PROTOCOL)
        self.frozen: list[object] = []

    def persistent_id(self, thing: object) -> int | None:
        """Keep a thing that never changes as it is."""
        if not isinstance(thing, Item | Decimal):
            return None
        self.frozen.append(thing)
        return len(self.frozen) - 1


class _Reader(pickle.Unpickler):
    def __init__(self, text: io.BytesIO, frozen: Sequence[object]) -> None:
        super().__init__(text)  # It was written above, and never left this process.
        self._frozen = frozen

    def persistent_load(self, number: int) -> object:
        """Return what was kept."""
        return self._frozen[number]


def copied(options: SandboxOptions) -> SandboxOptions:
    """Return a copy of options, of which nothing changes with them."""
    return attrs.evolve(options, unshippable=set(options.unshippable))
