"""A market that moves from day to day, served over loopback HTTP by the least that can serve it.

What each user owns on each day is a function of both, so whatever a store says can be held against it.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

_CARD: Final = {
    "claw_id": "BSG6DyEihFFtfvxtL9mKYsvTwiZXB1rq5gARMTJC2xAM",
    "claw_slug": "topps-chrome-2024",
    "mint_address": None,
    "purchased_at": "2026-04-18T19:05:14.000Z",
    "buyback_expires_at": None,
    "content": {"metadata": {"name": "Juan Soto RC Auto /25", "image": None}},
}


def cards_of(user_id: str, day: int) -> dict[str, float] | None:
    """Return what a user owns on a day, each card with its price; None for one who is unknown on that day."""
    chance = random.Random(user_id)
    if chance.random() < 0.03 and chance.randrange(3) != day:
        return None
    cards = {f"{user_id}|{number}": float(chance.randrange(1, 99)) for number in range(chance.randrange(8))}
    for today in range(1, day + 1):
        moves = random.Random(f"{user_id} {today}")
        for card in [card for card in cards if moves.random() < 0.05]:
            cards[card] += 0.25
        if cards and moves.random() < 0.1:
            del cards[moves.choice(sorted(cards))]
        if moves.random() < 0.1:
            cards[f"{user_id}|bought on {today}"] = float(moves.randrange(1, 99))
    return cards


def differences(user_id: str, day: int) -> list[tuple[str, str | None, float | None, float | None]]:
    """Return what is to be told of a user on a day, as kind, card and prices: from nobody on, day by day."""
    told: list[tuple[str, str | None, float | None, float | None]] = []
    last: dict[str, float] | None = None
    was_known: bool | None = None
    for today in range(day + 1):
        cards = cards_of(user_id, today)
        told = []
        if (cards is not None) is not was_known:
            told.append(("new user" if cards is not None else "unknown user", None, None, None))
        was_known = cards is not None
        if cards is None:
            continue
        # What a new user owns is not told as bought.
        former = cards if last is None else last
        for card in sorted({*cards, *former}):
            before, after = former.get(card), cards.get(card)
            kind = "bought" if before is None else "gone" if after is None else "repriced"
            if before != after:
                told.append((kind, card, before, after))
        last = cards
    return told


class _Connection(asyncio.Protocol):
    def __init__(self, asked: Callable[[], None]) -> None:
        self._asked = asked
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            head, _, self._unread = self._unread.partition(b"\r\n\r\n")
            self._asked()
            _, day, *_, user_id = head.split(b" ", 2)[1].decode().split("/")
            cards = cards_of(user_id, int(day))
            if cards is None:
                status, body = b"404 Not Found", b'{"error": "User not found"}'
            else:
                items = [{"id": card, "buyback_price": price, **_CARD} for card, price in cards.items()]
                status, body = b"200 OK", json.dumps({"user_id": user_id, "items": items}).encode()
            answer = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            self._transport.write(answer % (status, len(body), body))


class Market:
    """The server, in a thread of its own. The first segment of each path is the day."""

    def __init__(self) -> None:
        self.asked = 0
        self._at: dict[int, Callable[[], None]] = {}

    def after(self, requests: int, callback: Callable[[], None]) -> None:
        """Call a function, in the server's thread, when so many more requests have come."""
        self._at[self.asked + requests] = callback

    def forget(self) -> None:
        """Call nothing any more."""
        self._at.clear()

    def url(self, day: int) -> str:
        """Return the base URL of a day."""
        return f"http://127.0.0.1:{self._port}/{day}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve while the block runs."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(loop.create_server(lambda: _Connection(self._count), "127.0.0.1", 0))
        self._port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            server.close()
            loop.run_until_complete(server.wait_closed())
            loop.close()

    def _count(self) -> None:
        self.asked += 1
        if callback := self._at.pop(self.asked, None):
            callback()
