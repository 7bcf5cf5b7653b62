"""What the tests in a browser share."""

from __future__ import annotations

import os

import pytest

from browser_support import chromium


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Give the browser's path; where it must be there, its absence is a failure."""
    path = chromium()
    if path is None:
        reason = "needs Chromium and Playwright: `apt install chromium`, `pip install playwright axe-core-python`"
        if os.environ.get("PHYGITALS_TESTS_NEED_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
