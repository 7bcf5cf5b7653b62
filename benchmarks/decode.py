"""What does decoding an inventory cost through the public converter, against the bare decoder and pydantic?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from benchmarks.harness import Side, compare
from benchmarks.payloads import PydanticInventory, inventory
from phygitals_async import Inventory, build_converter

TIMES = 300


def repeat(decode: Callable[[bytes], object], body: bytes) -> None:
    """Decode `body` again and again, dropping each result."""
    for _ in range(TIMES):
        decode(body)


def main() -> None:
    """Print the tables for 1, 50 and 1000 items."""
    converter = build_converter()
    for items, rounds in ((1, 41), (50, 41), (1000, 9)):
        body = inventory(items)
        assert converter.loads(body, Inventory) == msgspec.json.decode(body, type=Inventory)
        compare(
            f"Decode {items} items, bytes to models",
            [
                Side("build_converter().loads", partial(repeat, lambda data: converter.loads(data, Inventory), body)),
                Side(
                    "bare msgspec.json.Decoder(Inventory).decode",
                    partial(repeat, msgspec.json.Decoder(Inventory).decode, body),
                    limit=True,
                ),
                Side("pydantic model_validate_json", partial(repeat, PydanticInventory.model_validate_json, body)),
            ],
            units=TIMES,
            unit="payload",
            rounds=rounds,
        )


if __name__ == "__main__":
    main()
