"""What the tests of bulk runs share as fixtures."""

from __future__ import annotations

from typing import cast

import pytest

from bulk_support import AsyncKeys, Keys


@pytest.fixture(params=[Keys, AsyncKeys])
def keys_class(request: pytest.FixtureRequest) -> type[Keys | AsyncKeys]:
    """Run a test with a plain and with an asynchronous source of keys."""
    return cast("type[Keys | AsyncKeys]", request.param)
