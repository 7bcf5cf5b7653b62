"""The run of a refresh: what it keeps, what it tells, and how it goes on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from phygitals_async import (
    PhygitalsClient,
    Request,
    Response,
    Sandbox,
)
from phygitals_async.refresh import (
    MemoryStore,
    read_changes,
    read_inventories,
    refresh,
)
from phygitals_transports import MemoryTransport
from support import ONCE, last_segment
from virtual import virtual_backend

anyio_backend = virtual_backend
pytestmark = pytest.mark.anyio


class World:
    """A sandbox, a client of it, and whom it was asked about."""

    def __init__(self, *user_ids: str, **options: Any) -> None:
        self.sandbox = Sandbox(seed=1)
        self.items = {user_id: self.give(user_id, "Pikachu") for user_id in user_ids}
        self.faults: dict[str, Response] = {}
        self.transport = MemoryTransport(self.answer)
        self.api = PhygitalsClient(self.transport, api_key="sandbox-test", retry=ONCE, **options)
        self.store = MemoryStore()

    def answer(self, request: Request) -> Response:
        """Answer as the sandbox does, but for the users who are told to fail."""
        return self.faults.get(last_segment(request)) or self.sandbox(request)

    def give(self, user_id: str, name: str, price: str = "8.50") -> Any:
        """Give a user a card."""
        return self.sandbox.add_item(user_id, name=name, buyback_price=Decimal(price))

    @property
    def asked(self) -> list[str]:
        """Who was asked about since the last look, in order."""
        asked = [last_segment(request) for request in self.transport.sent]
        self.transport.sent.clear()
        return sorted(asked)

    async def changes(self, **options: Any) -> list[tuple[str, str, str | None, str | None]]:
        """Return who changed how, and the names before and after."""
        return [
            (
                c.user_id,
                str(c.kind),
                None if c.before is None else c.before.name,
                None if c.after is None else c.after.name,
            )
            async for c in read_changes(self.store, **options)
        ]


async def test_the_first_run_keeps_every_inventory_and_tells_of_new_users() -> None:
    """What a new user owns is in the snapshot; somebody whom the API does not know is told of once."""
    world = World("a", "b")
    report = await refresh(world.api, ["a", "b", "nobody"], world.store, run="first")
    assert (report.run.name, report.run.number, report.run.known, report.run.unknown) == ("first", 1, 2, 1)
    assert (report.asked, report.failed, report.skipped, report.resumable) == (3, 0, 0, False)
    kept = {inventory.user_id: inventory async for inventory in read_inventories(world.store)}
    assert kept == {user_id: await world.api.get_inventory(user_id) for user_id in ("a", "b")}
    assert sorted(await world.changes()) == [
        ("a", "new user", None, None),
        ("b", "new user", None, None),
        ("nobody", "unknown user", None, None),
    ]
    again = await refresh(world.api, ["a", "b", "nobody"], world.store)
    assert (again.run.changed, again.run.changes) == (0, 0)
    assert again.run.number == 2
    assert len(await world.changes()) == 3
