"""The library in tests that freeze time, with freezegun, which replaces classes and functions, and time-machine.

Each runs in a process of its own: what was imported while time stood still makes the difference, and other tests are to
see neither of the two.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Final

import pytest

pytest_plugins = ["pytester"]

PROGRAM: Final = """
import asyncio, sys


def freeze():
    if library == "freezegun":
        import freezegun

        return freezegun.freeze_time("2026-04-18 19:05:14")
    import time_machine

    return time_machine.travel("2026-04-18 19:05:14+00:00", tick=False)


async def use(kept):
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal

    from phygitals_async import Destination, Inventory, ItemExpired, PhygitalsClient, Sandbox, build_converter
    from phygitals_async._structuring.hooks import is_native
    from phygitals_transports import MemoryTransport

    sandbox, api, converter = kept or (Sandbox(seed=1), None, build_converter())
    api = api or PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test")
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal("8.50"))
    inventory = await api.get_inventory("user")
    assert item in inventory.items
    assert item.purchased_at <= datetime.now(UTC) and item.sellback_open(datetime.now(UTC))
    bought = await api.purchase(sandbox.packs[0].id, 1, "user")
    assert await api.list_packs() and await api.list_recent_pulls()
    home = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
    quotes = await api.quote_shipping([bought.nfts[0].id], home)
    assert quotes.expires_at - timedelta(minutes=15) <= datetime.now(UTC)
    shipped = await api.request_shipping(quotes.quotes[0].id)
    order = await api.get_shipping_order(shipped.order_id)
    await api.sell_back(item.id)
    body = converter.dumps(inventory)
    for made in (converter, build_converter()):
        assert is_native(made.get_structure_hook(Inventory))
        for load in (made.loads, made._explain):
            again = load(body, Inventory)
            assert again == inventory and made.dumps(again) == body
            assert {type(each.purchased_at).__module__ for each in again.items} == {"datetime"}
    return (sandbox, api, converter), order.created_at


library, state = sys.argv[1:]
kept = None
if state == "imported":
    import phygitals_async.client, phygitals_async.sandbox
if state == "used":
    kept, _ = asyncio.run(use(None))
with freeze():
    kept, at = asyncio.run(use(kept))
    assert at.isoformat() == "2026-04-18T19:05:14+00:00", at
asyncio.run(use(kept))
asyncio.run(use(None))
"""


@pytest.mark.parametrize("state", ["cold", "imported", "used"])
@pytest.mark.parametrize("library", ["freezegun", "time_machine"])
def test_the_library_works_while_time_stands_still(library: str, state: str) -> None:
    """Before, meanwhile and after; imported before, used before, or neither."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, library, state], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_fixtures_work_while_time_stands_still(pytester: pytest.Pytester) -> None:
    """As an application's tests use them, time frozen by a decorator or in the test."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(
        textwrap.dedent("""
            from datetime import UTC, datetime, timedelta
            from decimal import Decimal

            import freezegun
            import pytest
            import time_machine
            from phygitals_async import ItemExpired

            pytestmark = pytest.mark.asyncio
            NOW = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)

            async def sell_too_late(api, sandbox, move_to):
                item = sandbox.add_item("user", name="Card", buyback_price=Decimal("8.50"))
                assert item.purchased_at == NOW
                assert (await api.get_inventory("user")).items == (item,)
                move_to(NOW + timedelta(days=8))
                with pytest.raises(ItemExpired):
                    await api.sell_back(item.id)

            @freezegun.freeze_time("2026-04-18 19:05:14")
            async def test_decorated(phygitals_client, phygitals_sandbox):
                await sell_too_late(phygitals_client, phygitals_sandbox, lambda to: phygitals_sandbox.advance(to - NOW))

            async def test_freezegun(phygitals_client, phygitals_sandbox):
                with freezegun.freeze_time("2026-04-18 19:05:14") as frozen:
                    await sell_too_late(phygitals_client, phygitals_sandbox, frozen.move_to)

            async def test_time_machine(phygitals_client, phygitals_sandbox):
                with time_machine.travel(NOW, tick=False) as traveller:
                    await sell_too_late(phygitals_client, phygitals_sandbox, traveller.move_to)
        """)
    )
    left_out = [f"-pno:{name}" for name in ("cacheprovider", "schemathesis", "hypothesispytest")]
    result = pytester.runpytest_subprocess("-W", "error", *left_out)
    result.assert_outcomes(passed=3)
