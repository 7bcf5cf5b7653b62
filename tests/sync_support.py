"""What the tests of the sync client share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TypeVar

import anyio

from phygitals_async import Item, Request, Response, Sandbox
from phygitals_async.sync import PhygitalsClient
from phygitals_transports import MemoryTransport

T = TypeVar("T")

KEY = "sandbox-key-for-these-tests"


def loops() -> list[threading.Thread]:
    """Return the threads that run the event loop of a sync client."""
    return [thread for thread in threading.enumerate() if thread.name == "phygitals-async"]


class Api:
    """A sandbox that can hold its answers back, and a sync client of it.

    Attributes:
        sandbox: The sandbox.
        item: An item in it, of user `a`.
        transport: Its transport.
        api: The client.
        arrived: Is called, in the loop's thread, when a request has been performed and its answer is held back.
        held: What the path of a request ends with whose answers are held back for ever.
    """

    def __init__(self, **settings: object) -> None:
        self.sandbox = Sandbox(seed=1)
        self.item: Item = self.sandbox.add_item("a", name="Juan Soto RC Auto /25", buyback_price=Decimal("8.50"))
        self.transport = MemoryTransport(self._answer)
        self.arrived: Callable[[], object] = lambda: None
        self.held = "nothing"
        self.api = PhygitalsClient(self.transport, api_key=KEY, **settings)  # type: ignore[arg-type]

    async def _answer(self, request: Request) -> Response:
        response = self.sandbox(request)
        if request.url.endswith(self.held):
            self.arrived()
            await anyio.sleep_forever()
        return response


@contextmanager
def open_api(**settings: object) -> Iterator[Api]:
    """Give an `Api`, and check that its thread has ended at the end."""
    before = len(loops())
    it = Api(**settings)
    with it.api:
        yield it
    assert len(loops()) == before


def in_threads(count: int, work: Callable[[int], T]) -> list[T | BaseException]:
    """Do something in so many threads at once, and return what came of each."""
    results: dict[int, T | BaseException] = {}
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            results[number] = work(number)
        except Exception as error:  # noqa: BLE001 - the test looks at it.
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(count)]
