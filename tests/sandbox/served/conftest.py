"""What the tests of a served sandbox share as fixtures."""

from __future__ import annotations

import pytest

from served_support import Client, client


@pytest.fixture
def browser() -> Client:
    """Return a client of a served sandbox with three users."""
    return client(users=3)
