"""What the tests in a browser share."""

from __future__ import annotations

import pytest

from browser_support import chromium


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Give the browser's path."""
    path = chromium()
    assert path is not None
    return path
