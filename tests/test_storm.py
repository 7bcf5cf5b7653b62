"""After ten thousand cancelled calls the client is as good as new."""

from __future__ import annotations

import asyncio
import gc
import os
import random

import pytest

from phygitals_async import Inventory, PhygitalsClient, Response
from phygitals_transports.aiohttp_server import serve

CALLS = 10_000
WAVE = 250


@pytest.mark.asyncio
async def test_ten_thousand_cancelled_calls_do_no_harm() -> None:
    """Cancelled in waves: before they start, while queued, connecting, sending, waiting, reading."""
    rng = random.Random(7)

    async def answer(_: object) -> Response:
        await asyncio.sleep(0.002)
        return Response(200, {"content-type": "application/json"}, b'{"user_id":"u","items":[]}')

    async with serve(answer) as url:
        files, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        api = PhygitalsClient(api_key="sandbox-test", base_url=url, max_in_flight=50)
        answered = cancelled = 0
        for _ in range(CALLS // WAVE):
            wave = [asyncio.create_task(api.get_inventory("u")) for _ in range(WAVE)]
            rng.shuffle(wave)
            while wave:
                for _ in range(rng.randrange(12)):
                    await asyncio.sleep(0)
                if rng.random() < 0.05:
                    await asyncio.sleep(rng.random() * 0.004)
                now, wave = wave[: WAVE // 5], wave[WAVE // 5 :]
                for task in now:
                    task.cancel()
                for outcome in await asyncio.gather(*now, return_exceptions=True):
                    answered += isinstance(outcome, Inventory)
                    cancelled += isinstance(outcome, asyncio.CancelledError)
        assert answered + cancelled == CALLS
        assert cancelled > CALLS // 2
        assert api._engine.admission.in_flight == 0

        async with asyncio.timeout(20):
            good = await asyncio.gather(*[api.get_inventory("u", deadline=10.0) for _ in range(20)])
        assert good == [Inventory("u", ())] * 20

        await api.aclose()
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > tasks or len(os.listdir("/proc/self/fd")) > files:
                gc.collect()
                await asyncio.sleep(0.01)
