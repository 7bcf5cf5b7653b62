"""After ten thousand cancelled calls the client is as good as new."""

from __future__ import annotations

import asyncio
import random

import pytest

from faults.cells import footprint, left_over
from phygitals_async import Inventory, PhygitalsClient, Response
from phygitals_transports.aiohttp_server import serve

CALLS = 10_000
WAVE = 250


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_ten_thousand_cancelled_calls_do_no_harm() -> None:
    """Cancelled in waves: before they start, while queued, connecting, sending, waiting, reading."""
    rng = random.Random(7)

    async def answer(_: object) -> Response:
        await _turns(rng.randrange(8))
        return Response(200, {"content-type": "application/json"}, b'{"user_id":"u","items":[]}')

    async with serve(answer) as url:
        before = footprint()
        api = PhygitalsClient(api_key="sandbox-test", base_url=url, max_in_flight=50, deadline=600.0)
        answered = cancelled = 0
        while cancelled < CALLS:
            wave = [asyncio.create_task(api.get_inventory("u")) for _ in range(WAVE)]
            rng.shuffle(wave)
            while wave:
                await _turns(rng.randrange(12))
                now, wave = wave[: WAVE // 5], wave[WAVE // 5 :]
                for task in now:
                    task.cancel()
                outcomes = await asyncio.gather(*now, return_exceptions=True)
                assert all(isinstance(outcome, Inventory | asyncio.CancelledError) for outcome in outcomes)
                answered += sum(isinstance(outcome, Inventory) for outcome in outcomes)
                cancelled += sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        # Some were far enough on to be answered, so that others were cancelled at every point before that.
        assert answered > 0
        assert api._engine.admission.in_flight == 0

        good = await asyncio.gather(*[api.get_inventory("u") for _ in range(20)])
        assert good == [Inventory("u", ())] * 20
        await api.aclose()
        assert not await left_over(before)
