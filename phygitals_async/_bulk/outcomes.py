"""What comes of looking up many keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeAlias, TypeVar

from attrs import field, frozen

from phygitals_async.errors import PhygitalsError

K = TypeVar("K")
V = TypeVar("V")


@frozen
class Found(Generic[K, V]):
    """A lookup that was answered.

    Attributes:
        key: What was looked up, such as a user id.
        value: What was found, such as an inventory.
    """

    key: K
    value: V


@frozen
class Failed(Generic[K]):
    """A lookup that ended in an error of this library.

    Attributes:
        key: What was looked up, such as a user id.
        error: Why nothing was found.
    """

    key: K
    error: PhygitalsError


Outcome: TypeAlias = Found[K, V] | Failed[K]
"""What became of one key."""


@frozen
class Batch(Generic[K, V]):
    """Every outcome of a bulk run, in the order of the keys given.

    Iterating gives one outcome for each key given; a repeated key shares the outcome of its one lookup.
    `batch[key]` is the outcome of a key (`KeyError` for one that was not given), `batch.get(key)` the same or None,
    and `key in batch` says whether it was given.

    Attributes:
        outcomes: All of them, in the order of the keys.
    """

    outcomes: tuple[Outcome[K, V], ...]
    _by_key: dict[K, Outcome[K, V]] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_by_key", {outcome.key: outcome for outcome in self.outcomes})

    def __iter__(self) -> Iterator[Outcome[K, V]]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, key: K) -> Outcome[K, V]:
        return self._by_key[key]

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def get(self, key: K) -> Outcome[K, V] | None:
        """Return the outcome of a key, or None for one that was not given."""
        return self._by_key.get(key)

    @property
    def found(self) -> tuple[Found[K, V], ...]:
        """The outcomes that were answered."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Found))

    @property
    def failed(self) -> tuple[Failed[K], ...]:
        """The outcomes that ended in an error."""
        return tuple(outcome for outcome in self.outcomes if isinstance(outcome, Failed))

    def raise_failures(self) -> None:
        """Raise all failures together, each once, or do nothing when there are none.

        Raises:
            ExceptionGroup: Its exceptions are the `PhygitalsError`s of the failed lookups.
        """
        failures = [outcome.error for outcome in self._by_key.values() if isinstance(outcome, Failed)]
        if failures:
            msg = f"{len(failures)} of {len(self._by_key)} lookups failed"
            raise ExceptionGroup(msg, failures)
