"""What users asked for that moves money or goods, one row each: the shop's own book."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import frozen

from phygitals_async import PurchasedItem

# Three things are the database's to refuse, for only it sees every request in one order. The id comes with the form, so
# a double click, or a reload, finds the row of the first. Nobody starts a second deal about the same thing while what
# became of the first is not known: two lost ones could not be told apart. And an item is in one open deal at most,
# whatever its kind. That holds for each user: in a sandbox, two may have been given the same item.
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS deals (
        id TEXT PRIMARY KEY, user_id TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, title TEXT NOT NULL,
        started_at TEXT NOT NULL, pulls INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'under way',
        text TEXT NOT NULL DEFAULT '', entry_id TEXT, session_id TEXT, order_id TEXT, amount TEXT
    );
    DROP INDEX IF EXISTS one_at_a_time;
    CREATE INDEX IF NOT EXISTS by_user ON deals (user_id, started_at);
    CREATE TABLE IF NOT EXISTS deal_items (
        deal_id TEXT NOT NULL, user_id TEXT NOT NULL, item_id TEXT NOT NULL, is_open INTEGER NOT NULL DEFAULT 1,
        PRIMARY KEY (deal_id, item_id)
    );
    CREATE UNIQUE INDEX IF NOT EXISTS one_deal_at_a_time ON deal_items (user_id, item_id) WHERE is_open;
    CREATE TRIGGER IF NOT EXISTS deal_is_over AFTER UPDATE OF state ON deals WHEN NEW.state IN ('done', 'failed')
        BEGIN UPDATE deal_items SET is_open = 0 WHERE deal_id = NEW.id; END;
    CREATE TABLE IF NOT EXISTS pulled_cards (
        deal_id TEXT NOT NULL, item_id TEXT NOT NULL, name TEXT NOT NULL, image TEXT, buyback_price TEXT NOT NULL,
        PRIMARY KEY (deal_id, item_id)
    )
"""

# What became of a lost purchase may never show. For so long nobody buys the same pack again.
_PURCHASE_IN_THE_WAY = timedelta(minutes=30)


@frozen
class Deal:
    """One purchase, sale or shipment.

    Attributes:
        id: From the token of the form that asked for it.
        user_id: Who asked.
        kind: `buy`, `sell` or `ship`.
        subject: The pack, the item or the quote.
        title: What to call it on a page.
        started_at: When it was asked for, UTC, as text.
        pulls: How many were asked for, of a purchase.
        state: `under way`, `done`, `failed`, or `unknown`: the answer was lost.
        text: What to tell the user of it.
        entry_id: Its entry in the journal, from before anything was sent.
        session_id: The API's, of a purchase that was started.
        order_id: The API's, of a shipment.
        amount: USD: what a purchase or a shipment costs, or what was paid for an item.
    """

    id: str
    user_id: str
    kind: str
    subject: str
    title: str
    started_at: str
    pulls: int
    state: str
    text: str
    entry_id: str | None
    session_id: str | None
    order_id: str | None
    amount: str | None

    @property
    def is_over(self) -> bool:
        """Whether it is known what became of it."""
        return self.state in ("done", "failed")


@frozen
class PulledCard:
    """A card that a purchase brought, as it was then.

    Attributes:
        name: The card's name.
        image: URL of the front picture, or None.
        buyback_price: USD that a sellback paid then, as text.
    """

    name: str
    image: str | None
    buyback_price: str


class Deals:
    """The book, in a SQLite file.

    A statement takes well under a millisecond on a local disk, and so is run in the event loop. What is awaited in a
    shop of yours, such as a database over a network, goes in the same places.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def begin(
        self,
        deal_id: str,
        user_id: str,
        kind: str,
        subject: str,
        title: str,
        *,
        items: Iterable[str] = (),
        pulls: int = 0,
        amount: str | None = None,
    ) -> tuple[Deal, bool]:
        """Write a deal down, and return it with True; or the one that stands in its way, with False.

        That is the deal itself where it is there already, or an open one about the same thing or about one of `items`:
        the ids of what is sold or shipped.
        """
        item_ids, now = list(items), datetime.now(UTC)
        since = (now - _PURCHASE_IN_THE_WAY).isoformat()
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            in_the_way = self._read(
                "id = ? OR state IN ('under way', 'unknown') AND user_id = ? AND (kind = ? AND subject = ? "
                "AND (kind <> 'buy' OR state = 'under way' OR started_at > ?) OR id IN "
                "(SELECT deal_id FROM deal_items WHERE is_open AND item_id IN (SELECT value FROM json_each(?)))) "
                "ORDER BY id = ? DESC LIMIT 1",
                deal_id, user_id, kind, subject, since, json.dumps(item_ids), deal_id,
            )  # fmt: skip
            if in_the_way:
                return in_the_way[0], False
            self._db.execute(
                "INSERT INTO deals (id, user_id, kind, subject, title, started_at, pulls, amount) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (deal_id, user_id, kind, subject, title, now.isoformat(), pulls, amount),
            )
            self._db.executemany(
                "INSERT INTO deal_items (deal_id, user_id, item_id) VALUES (?, ?, ?)",
                [(deal_id, user_id, item_id) for item_id in item_ids],
            )
            return self._read("id = ?", deal_id)[0], True

    def change(self, deal_id: str, **values: str | None) -> None:
        """Change some columns of a deal."""
        columns = ", ".join(f"{name} = ?" for name in values)
        self._db.execute(f"UPDATE deals SET {columns} WHERE id = ?", (*values.values(), deal_id))  # noqa: S608 - names of ours.

    def get(self, deal_id: str, user_id: str) -> Deal | None:
        """Return a user's deal; nobody sees another's."""
        return next(iter(self._read("id = ? AND user_id = ?", deal_id, user_id)), None)

    def items_of_order(self, order_id: str, user_id: str) -> set[str]:
        """Return the ids of what a user had shipped with an order; none where the order is not theirs.

        The API shows every order of the shop. The last deal with it counts: a sandbox that was reset gives its ids
        again.
        """
        rows = self._db.execute(
            "SELECT item_id FROM deal_items WHERE user_id = ? AND deal_id = "
            "(SELECT id FROM deals WHERE order_id = ? ORDER BY rowid DESC LIMIT 1)",
            (user_id, order_id),
        )
        return {row["item_id"] for row in rows}

    def keep_cards(self, deal_id: str, cards: Iterable[PurchasedItem]) -> None:
        """Keep what a purchase brought. The API is not asked again: it may know another purchase by that id then."""
        self._db.executemany(
            "INSERT OR REPLACE INTO pulled_cards (deal_id, item_id, name, image, buyback_price) VALUES (?, ?, ?, ?, ?)",
            [(deal_id, card.id, card.name, card.image, str(card.buyback_price)) for card in cards],
        )

    def cards_of(self, deal_id: str) -> list[PulledCard]:
        """Return what a purchase brought."""
        rows = self._db.execute(
            "SELECT name, image, buyback_price FROM pulled_cards WHERE deal_id = ? ORDER BY rowid", (deal_id,)
        )
        return [PulledCard(**row) for row in rows]

    def of(self, user_id: str) -> list[Deal]:
        """Return a user's last deals, the newest first."""
        return self._read("user_id = ? ORDER BY started_at DESC LIMIT 100", user_id)

    def open_items(self, user_id: str) -> dict[str, Deal]:
        """Return which of a user's items are in a deal of which it is not known yet what became of it."""
        rows = self._db.execute(
            "SELECT item_id, deals.* FROM deal_items JOIN deals ON deals.id = deal_id "
            "WHERE deal_items.user_id = ? AND is_open",
            (user_id,),
        )
        return {item_id: Deal(*deal) for item_id, *deal in rows}

    def in_state(self, state: str) -> list[Deal]:
        """Return all that are in a state, the oldest first."""
        return self._read("state = ? ORDER BY started_at", state)

    def interrupt(self) -> None:
        """Say of those under way that it is not known what became of them: the process that saw to them is gone.

        At the start, of a shop in one process. Several would each write down which deals are theirs.
        """
        self._db.execute("UPDATE deals SET state = 'unknown', text = 'It was interrupted.' WHERE state = 'under way'")

    def _read(self, where: str, *values: Any) -> list[Deal]:
        rows = self._db.execute(f"SELECT * FROM deals WHERE {where}", values)  # noqa: S608 - conditions of ours.
        return [Deal(**row) for row in rows]
