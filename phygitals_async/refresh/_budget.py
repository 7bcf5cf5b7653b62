"""A rate that processes and machines share."""

from __future__ import annotations

from typing import Final

from phygitals_async._checks import check_rate
from phygitals_async.errors import ConfigurationError
from phygitals_async.refresh._store import Store, can_be_named

# Requests per second. A store takes what is reserved further ahead than five minutes for a mistake of the clock's.
_SLOWEST: Final = 0.1


class Budget:
    """One limit for all who share it: `PhygitalsClient(rate=Budget(store, 200.0))`.

    Clients in any number of processes, and on any number of machines where the store is a `PostgresStore`, send
    together no more than `rate` requests per second. Each reserves from the store the next few moments at which it may
    send, no more than it has requests for and about a tenth of a second ahead, so each has its share, and what ends
    suddenly loses the others hardly anything. The store may be in use for a run as well, and is not closed with
    the client.

    Args:
        store: Where what is reserved is kept. An `SqliteStore` goes by the machine's clock, a `PostgresStore` by the
            server's.
        rate: The most requests per second of all clients together, at least 0.1; the same for all who share it.
        name: Tells it from other budgets in the store, such as one for another key.

    Attributes:
        interval: The seconds from one request to the next.

    Raises:
        ConfigurationError: One of them is not what it should be.
    """

    def __init__(self, store: Store, rate: float, name: str = "default") -> None:
        if isinstance(store, type) or not callable(getattr(store, "reserve", None)):
            msg = "store must be a store of phygitals_async.refresh, or another Store"
            raise ConfigurationError(msg)
        if check_rate("rate", rate) < _SLOWEST:
            msg = f"the rate of a budget must be at least {_SLOWEST:g} requests per second"
            raise ConfigurationError(msg)
        if not can_be_named(name):
            msg = "the name of a budget must be a text that a store can keep"
            raise ConfigurationError(msg)
        self.interval = 1 / rate
        self._store = store
        self._name = name

    def __repr__(self) -> str:
        return f"<Budget {self._name!r} of {1 / self.interval:g} requests/s in {self._store!r}>"

    async def reserve(self, count: int) -> float:
        """Reserve so many moments, `interval` apart, and return in how many seconds from now the first is.

        Raises:
            StoreError: The store failed.
        """
        return await self._store.reserve(self._name, count * self.interval)
