"""A queue to wait in: whoever is woken goes on, or wakes the next."""

from __future__ import annotations

import asyncio

from phygitals_async._loop.wait_queue import WaitQueue
from virtual import run_virtually, settle


def test_who_is_woken_and_cancelled_in_one_turn_wakes_the_next() -> None:
    """One waking is meant for one that goes on. Scopes do not cancel who was woken already; asyncio's `cancel` does."""

    async def main() -> None:
        queue = WaitQueue()
        woken: list[int] = []

        async def wait(number: int) -> None:
            await queue.wait()
            woken.append(number)

        tasks = [asyncio.create_task(wait(number)) for number in range(3)]
        await settle()
        assert queue.notify()
        tasks[0].cancel()
        await settle()
        assert woken == [1]
        # Who is cancelled while they wait takes no waking along.
        tasks[2].cancel()
        await settle()
        assert not queue.notify()

    run_virtually(main)
