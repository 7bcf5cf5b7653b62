"""Texts that only this shop can have written: the cookie of who is signed in, and the tokens of forms."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from secrets import token_bytes
from typing import Any


class Signer:
    """Signs short lists of values, and reads what it signed.

    Args:
        secret: The same in every process of the shop, and known to nobody else.
        clock: Returns the time, in seconds.
    """

    def __init__(self, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock

    def sign(self, purpose: str, *values: object) -> str:
        """Return a text that holds the values; one signed for one purpose is good for no other."""
        body = base64.urlsafe_b64encode(json.dumps([purpose, int(self._clock()), *values]).encode()).decode()
        return f"{body}.{self._mac(body)}"

    def read(self, purpose: str, text: str, max_age: float) -> list[Any] | None:
        """Return the values of a signed text, or None where it is not one, or older than `max_age` seconds."""
        body, _, mac = text.partition(".")
        # Compared in a time that tells nothing. Nothing of the text is read before.
        if not hmac.compare_digest(mac.encode(), self._mac(body).encode()):
            return None
        signed_for, at, *values = json.loads(base64.urlsafe_b64decode(body))
        return values if signed_for == purpose and self._clock() - at <= max_age else None

    def _mac(self, body: str) -> str:
        return hmac.new(self._secret, body.encode(), hashlib.sha256).hexdigest()


def read_secret(path: Path) -> bytes:
    """Return the secret kept in a file, which is made where there is none: who is signed in survives a restart."""
    # Killed between the two lines below, a process leaves an empty one.
    if not path.exists() or path.stat().st_size == 0:
        path.touch(mode=0o600)
        path.write_bytes(token_bytes(32))
    return path.read_bytes()
