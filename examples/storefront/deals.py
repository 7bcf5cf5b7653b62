"""What users asked for that moves money or goods, one row each: the shop's own book."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import frozen

# Two things are the database's to refuse, for only it sees every request in one order. The id comes with the form, so a
# double click, or a reload, finds the row of the first. And nobody starts a second deal about the same thing while what
# became of the first is not known: nothing could tell the two apart then.
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS deals (
        id TEXT PRIMARY KEY, user_id TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, title TEXT NOT NULL,
        started_at TEXT NOT NULL, pulls INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'under way',
        text TEXT NOT NULL DEFAULT '', entry_id TEXT, session_id TEXT, order_id TEXT, amount TEXT
    );
    CREATE UNIQUE INDEX IF NOT EXISTS one_at_a_time ON deals (user_id, kind, subject)
        WHERE state IN ('under way', 'unknown');
    CREATE INDEX IF NOT EXISTS by_user ON deals (user_id, started_at)
"""


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


class Deals:
    """The book, in a SQLite file.

    A statement takes well under a millisecond on a local disk, and so is run in the event loop. What is awaited in a
    shop of yours, such as a database over a network, goes in the same places.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(_SCHEMA)

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
        pulls: int = 0,
        amount: str | None = None,
    ) -> tuple[Deal, bool]:
        """Write a deal down, and return it with True; or the one that is there already, with False."""
        new = self._db.execute(
            "INSERT OR IGNORE INTO deals (id, user_id, kind, subject, title, started_at, pulls, amount) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (deal_id, user_id, kind, subject, title, datetime.now(UTC).isoformat(), pulls, amount),
        ).rowcount
        (deal,) = self._read(
            "id = ? OR (user_id = ? AND kind = ? AND subject = ? AND state IN ('under way', 'unknown')) "
            "ORDER BY id = ? DESC LIMIT 1",
            deal_id, user_id, kind, subject, deal_id,
        )  # fmt: skip
        return deal, new == 1

    def change(self, deal_id: str, **values: str | None) -> None:
        """Change some columns of a deal."""
        columns = ", ".join(f"{name} = ?" for name in values)
        self._db.execute(f"UPDATE deals SET {columns} WHERE id = ?", (*values.values(), deal_id))  # noqa: S608 - names of ours.

    def get(self, deal_id: str, user_id: str) -> Deal | None:
        """Return a user's deal; nobody sees another's."""
        return next(iter(self._read("id = ? AND user_id = ?", deal_id, user_id)), None)

    def has_order(self, order_id: str, user_id: str) -> bool:
        """Whether a shipping order is the user's: the API shows every order of the shop."""
        return bool(self._read("order_id = ? AND user_id = ?", order_id, user_id))

    def of(self, user_id: str) -> list[Deal]:
        """Return a user's last deals, the newest first."""
        return self._read("user_id = ? ORDER BY started_at DESC LIMIT 100", user_id)

    def open_sales(self, user_id: str) -> dict[str, Deal]:
        """Return a user's sales of which it is not known yet what became of them, by item."""
        sales = self._read("user_id = ? AND kind = 'sell' AND state IN ('under way', 'unknown')", user_id)
        return {sale.subject: sale for sale in sales}

    def unknown(self) -> list[Deal]:
        """Return those of which it is not known what became of them, the oldest first."""
        return self._read("state = 'unknown' ORDER BY started_at")

    def interrupt(self) -> None:
        """Say of those under way that it is not known what became of them: the process that saw to them is gone.

        At the start, of a shop in one process. Several would each write down which deals are theirs.
        """
        self._db.execute("UPDATE deals SET state = 'unknown', text = 'It was interrupted.' WHERE state = 'under way'")

    def _read(self, where: str, *values: Any) -> list[Deal]:
        rows = self._db.execute(f"SELECT * FROM deals WHERE {where}", values)  # noqa: S608 - conditions of ours.
        return [Deal(**row) for row in rows]
