"""The pictures of the documents can be taken as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import script

_PNG = b"\x89PNG"


@pytest.mark.asyncio
@pytest.mark.usefixtures("browser_path")
async def test_the_pictures_are_taken(tmp_path: Path) -> None:
    """Of the storefront and the console, without an error on a page or a request to another host."""
    await script("build_pictures").take(tmp_path)
    taken = _files(tmp_path)
    assert set(taken) == {"storefront.png", "console.png"}
    assert all(picture.startswith(_PNG) and len(picture) > 20_000 for picture in taken.values())


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
