"""What comes of many lookups, as one object."""

from __future__ import annotations

import pytest

from phygitals_async import Batch, Failed, Found, UserNotFound


def test_a_batch_is_asked_for_one_of_its_keys() -> None:
    """By the key itself, and never by position."""
    found, failed = Found("a", 1), Failed("b", UserNotFound(status=404))
    batch: Batch[str, int] = Batch((found, failed, found))
    assert batch["a"] is found
    assert batch.get("b") is failed
    assert "a" in batch
    assert "c" not in batch
    assert batch.get("c") is None
    with pytest.raises(KeyError):
        batch["c"]
    assert list(batch) == [found, failed, found]
    assert (len(batch), batch.found, batch.failed) == (3, (found, found), (failed,))
