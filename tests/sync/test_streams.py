"""Bulk runs of the sync client."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from phygitals_async import ConfigurationError, Failed, Found, InvalidArgumentError, Request, Response, UserNotFound
from phygitals_async.sync import FanOut, PhygitalsClient
from phygitals_transports import MemoryTransport
from support import ONCE, empty_inventories
from sync_support import KEY, in_threads, open_api


@pytest.fixture
def api() -> Iterator[PhygitalsClient]:
    """Return a client to whom every user is known, and owns nothing."""
    with PhygitalsClient(MemoryTransport(empty_inventories), api_key=KEY) as client:
        yield client


def users(count: int) -> Iterator[str]:
    """Give ids."""
    return (f"user{number}" for number in range(count))


@pytest.mark.parametrize("limit", [1, 2, 64])
def test_each_key_has_an_outcome(api: PhygitalsClient, limit: int) -> None:
    """As many as there are, each once, and then the iterator ends for good."""
    with api.stream_inventories(users(300), limit=limit) as outcomes:
        assert isinstance(outcomes, FanOut)
        found = [outcome.key for outcome in outcomes if isinstance(outcome, Found)]
        assert next(outcomes, None) is None
        assert outcomes.progress.found == 300
    assert sorted(found) == sorted(users(300))


def test_no_keys_and_repeated_keys(api: PhygitalsClient) -> None:
    """Nothing waits for a key that does not come; `distinct` leaves repeated ones out."""
    with api.stream_inventories([]) as outcomes:
        assert list(outcomes) == []
    with api.stream_inventories(["a"] * 1500 + ["b"], limit=2, distinct=True) as outcomes:
        assert sorted(outcome.key for outcome in outcomes) == ["a", "b"]


def test_a_failure_is_an_outcome() -> None:
    """As with the async client."""
    with open_api() as it, it.api.stream_inventories(["a", "nobody"]) as outcomes:
        by_key = {outcome.key: outcome for outcome in outcomes}
        assert isinstance(by_key["a"], Found)
        assert isinstance(by_key["nobody"], Failed)
        assert isinstance(by_key["nobody"].error, UserNotFound)


def test_the_keys_come_from_a_cursor_of_this_thread(api: PhygitalsClient) -> None:
    """A database that serves one thread only is read while its outcomes are written."""
    database = sqlite3.connect(":memory:")
    database.execute("create table users (id)")
    database.executemany("insert into users values (?)", ((id_,) for id_ in users(200)))
    database.execute("create table found (id)")
    with api.stream_inventories(row[0] for row in database.execute("select id from users")) as outcomes:
        for outcome in outcomes:
            database.execute("insert into found values (?)", (outcome.key,))
    assert database.execute("select count(distinct id) from found").fetchone() == (200,)
    database.close()


def test_the_keys_may_come_from_calls_of_the_same_client(api: PhygitalsClient) -> None:
    """One bulk run feeds the next."""
    with (
        api.stream_inventories(users(100)) as first,
        api.stream_inventories((outcome.key for outcome in first), limit=3) as second,
    ):
        assert sorted(outcome.key for outcome in second) == sorted(users(100))


def test_keys_are_read_lazily(api: PhygitalsClient) -> None:
    """At most twice the limit is read and not taken, and leaving early reads no more."""
    read = 0
    closed = False

    def endless() -> Iterator[str]:
        nonlocal read, closed
        try:
            while True:
                read += 1
                yield f"user{read}"
        finally:
            closed = True

    with api.stream_inventories(endless(), limit=4) as outcomes:
        for taken, _ in enumerate(outcomes, 1):
            assert read <= taken + 2 * 4
            if taken == 50:
                break
        assert not closed
    assert closed
    assert read <= 50 + 2 * 4
    with pytest.raises(RuntimeError, match="left before all of its keys"):
        next(outcomes)
    # The client is as good as ever.
    assert api.get_inventory("a").user_id == "a"


def test_leaving_early_cancels_lookups_in_flight() -> None:
    """Lookups that would never end do not hold up the end of the block."""
    with open_api() as it:
        it.held = "/b"
        with it.api.stream_inventories(["a", "b"]) as outcomes:
            assert next(outcomes).key == "a"
        assert it.api.get_inventory("a").user_id == "a"


def test_an_error_in_the_body_comes_out_as_it_is(api: PhygitalsClient) -> None:
    """And the source is closed."""
    error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught, api.stream_inventories(users(10)):
        raise error
    assert caught.value is error


def test_what_the_source_raises_comes_after_the_outcomes_before_it(api: PhygitalsClient) -> None:
    """Nothing that was read is lost."""

    def failing() -> Iterator[str]:
        yield from users(5)
        raise KeyError("the database is gone")

    found: list[str] = []
    with (
        api.stream_inventories(failing()) as outcomes,
        pytest.raises(KeyError, match="the database is gone"),
    ):
        found.extend(outcome.key for outcome in outcomes)
    assert sorted(found) == sorted(users(5))


def test_many_threads_may_read_one_run(api: PhygitalsClient) -> None:
    """Each outcome goes to one of them."""
    with api.stream_inventories(users(200), limit=8) as outcomes:
        parts = in_threads(5, lambda _: [outcome.key for outcome in outcomes])
    assert sorted(key for part in parts for key in part) == sorted(users(200))  # type: ignore[union-attr]


def test_another_thread_may_end_a_run() -> None:
    """Who waits for an outcome learns that the run was left."""
    with open_api() as it:
        it.held = "/b"
        outcomes = it.api.stream_inventories(["b"])
        arrived = threading.Event()
        it.arrived = arrived.set

        def close() -> None:
            arrived.wait()
            outcomes.close()

        closer = threading.Thread(target=close)
        closer.start()
        with outcomes, pytest.raises(RuntimeError, match="left before all of its keys"):
            next(outcomes)
        closer.join()


def test_what_is_refused(api: PhygitalsClient) -> None:
    """Settings and keys are checked where the run is made."""
    with pytest.raises(InvalidArgumentError, match="not a single str"):
        api.stream_inventories("abc")
    with pytest.raises(ConfigurationError, match="limit"):
        api.stream_inventories([], limit=0)

    async def keys() -> AsyncIterator[str]:
        yield "a"

    refused = pytest.raises(InvalidArgumentError, match="the sync client reads plain iterables, not async_generator")
    with refused:
        api.stream_inventories(keys())  # type: ignore[arg-type]
    with refused:
        api.get_inventories(keys())  # type: ignore[arg-type]
    with refused:
        api.list_recent_pulls(claw_ids=keys())  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"^enter the bulk run first: with \.\.\. as outcomes$"):
        next(api.stream_inventories([]))


def test_a_query_that_can_be_read_either_way_is_read_in_this_thread(api: PhygitalsClient) -> None:
    """As the query sets of an ORM are that serves event loops too."""

    class Query:
        def __iter__(self) -> Iterator[str]:
            assert threading.current_thread() is threading.main_thread()
            return iter(["a", "b"])

        def __aiter__(self) -> AsyncIterator[str]:
            raise AssertionError

    with api.stream_inventories(Query()) as outcomes:
        assert sorted(outcome.key for outcome in outcomes) == ["a", "b"]
    assert len(api.get_inventories(Query())) == 2


def test_a_run_goes_through_an_outage() -> None:
    """Keys are set aside and looked up again as in the async client, though each is read only when it is needed."""
    answered = 0

    def handler(request: Request) -> Response:
        nonlocal answered
        answered += 1
        return Response(503, {}, b"") if 20 < answered < 33 else empty_inventories(request)

    with (
        PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=ONCE) as api,
        api.stream_inventories(users(60), limit=4) as outcomes,
    ):
        assert sorted(outcome.key for outcome in outcomes) == sorted(users(60))
        assert outcomes.progress.attempts > 60


def test_the_client_is_closed_within_the_block() -> None:
    """The block ends as ever, and says in between that the client was closed."""
    with open_api() as it, it.api.stream_inventories(users(3)) as outcomes:
        it.api.close()
        with pytest.raises(Exception, match="the client was closed"):
            next(outcomes)
