"""Reading a body without being drowned by it."""

from __future__ import annotations

import aiohttp


async def read_body(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """Return the decoded body, or None, and hang up, where it is larger than `most` bytes."""
    length = response.content_length
    if length is not None and length <= most and "content-encoding" not in response.headers:
        return await response.read()
    # What arrives is counted as it is decoded: 300 KB of gzip can hold 300 MiB.
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > most:
            response.close()
            return None
    return bytes(body)
