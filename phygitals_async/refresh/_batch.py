"""What a refresh has found and not committed yet."""

from __future__ import annotations

from typing import Final

from attrs import field, frozen

from phygitals_async._checks import has_surrogate
from phygitals_async.models import Inventory
from phygitals_async.refresh._changes import Difference
from phygitals_async.refresh._store import Counted, Part, StoredUser, plus

# In bytes.
_LONGEST_ID: Final = 2000


@frozen(eq=False)
class Batch:
    """What the next commit is going to hold.

    Attributes:
        began: When the first of it came, in seconds.
        users: What is now known of those of whom something is new.
        seen: The others, and whether they are known.
        snapshots: The new ones.
        news: What there is to tell.
        moved: Those to be compared with the snapshot before.
        repriced: Those of them whose cards are the same, at other prices.
    """

    began: float
    users: dict[str, StoredUser] = field(factory=dict)
    seen: dict[str, bool] = field(factory=dict)
    snapshots: dict[str, bytes] = field(factory=dict)
    news: dict[str, list[Difference]] = field(factory=dict)
    moved: dict[str, Inventory] = field(factory=dict)
    repriced: set[str] = field(factory=set)

    @property
    def size(self) -> int:
        """How many users it has."""
        return len(self.users) + len(self.seen)

    def drop(self, user_id: str) -> None:
        """Take somebody out."""
        for kept in (self.users, self.seen, self.snapshots, self.news, self.moved):
            kept.pop(user_id, None)
        self.repriced.discard(user_id)


def counted(counts: Counted, batch: Batch) -> Counted:
    """Return a run or a part with what a batch adds to its counts."""
    known = sum(user.known for user in batch.users.values()) + sum(batch.seen.values())
    return plus(
        counts,
        Part(
            0,
            known=known,
            unknown=batch.size - known,
            changed=len(batch.news),
            repriced=len(batch.repriced),
            changes=sum(map(len, batch.news.values())),
        ),
    )


def can_be_kept(user_id: object) -> bool:
    """Whether every store can keep a user of this id."""
    # PostgreSQL has no place for the character 0 in a text, nor for a long one in an index.
    if not isinstance(user_id, str) or "\0" in user_id or has_surrogate(user_id):
        return False
    return len(user_id) <= _LONGEST_ID // 4 or len(user_id.encode()) <= _LONGEST_ID
