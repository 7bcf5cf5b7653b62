"""What a new user reads who did something wrong: what it was, and what is meant."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import attrs
import pytest

from phygitals_async import (
    CardNotFound,
    ConfigurationError,
    CountryNotSupported,
    Destination,
    InvalidArgumentError,
    ItemNotFound,
    MissingField,
    NotFound,
    OrderNotFound,
    PackNotFound,
    PhygitalsClient,
    PhygitalsError,
    QuoteExpired,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
    TransactionFailed,
    UserNotFound,
    sync,
)
from phygitals_transports import AiohttpTransport, MemoryTransport
from support import empty_inventories

KEY = "sandbox-5ecret-of-some-length"
HOME = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")


@pytest.fixture
def api() -> PhygitalsClient:
    """Return a client of a sandbox."""
    return PhygitalsClient(MemoryTransport(Sandbox(seed=1)), api_key=KEY)


async def text_of(call: Any, error: type[PhygitalsError]) -> str:
    """Return the text of the error that a call raises."""
    with pytest.raises(error) as caught:
        await call
    assert type(caught.value) is error
    return str(caught.value)


@pytest.mark.anyio
async def test_what_is_not_found_is_named(api: PhygitalsClient) -> None:
    """The id is in the text, as it was given."""
    assert await text_of(api.get_inventory("no/body"), UserNotFound) == (
        "get_inventory: 404 User not found (user_id 'no/body')"
    )
    assert (await text_of(api.get_card("c"), CardNotFound)).endswith("404 Card not found (item_id 'c')")
    assert (await text_of(api.get_shipping_order("o"), OrderNotFound)).endswith("(order_id 'o')")
    assert (await text_of(api.sell_back("i"), ItemNotFound)).endswith("400 Item not found (item_id 'i')")
    assert (await text_of(api.quote_shipping(["i", "j"], HOME), ItemNotFound)).endswith("(item_ids ['i', 'j'])")
    assert (await text_of(api.get_purchase("s"), TransactionFailed)).endswith("(session_id 's')")


@pytest.mark.anyio
async def test_what_is_no_quote_id_is_named(api: PhygitalsClient) -> None:
    """Whatever the API calls it, the id that was sent is there, and what is meant."""
    hint = "; the id of one of a session's quotes is meant, such as quotes.cheapest.id, and it expires"
    assert await text_of(api.request_shipping("nope"), MissingField) == (
        f"request_shipping: 400 quote_id is required (quote_id 'nope'){hint}"
    )
    assert (await text_of(api.request_shipping("q_rate_x"), QuoteExpired)).endswith(f"(quote_id 'q_rate_x'){hint}")


@pytest.mark.parametrize("wrong", ["user_1", b"user_1", 5, None])
@pytest.mark.anyio
async def test_one_user_in_the_place_of_many(api: PhygitalsClient, wrong: Any) -> None:
    """It is user ids that are asked for, and another method takes one; the sync client says the same."""
    text = f"^user_ids must be an iterable of user ids, not a single {type(wrong).__name__}; .* get_inventory"
    with pytest.raises(InvalidArgumentError, match=text):
        await api.get_inventories(wrong)
    with pytest.raises(InvalidArgumentError, match=text):
        api.stream_inventories(wrong)
    with sync.PhygitalsClient(MemoryTransport(Sandbox()), api_key=KEY) as waiting:
        with pytest.raises(InvalidArgumentError, match=text):
            waiting.get_inventories(wrong)
        with pytest.raises(InvalidArgumentError, match=text):
            waiting.stream_inventories(wrong)


@pytest.mark.anyio
async def test_a_slug_in_the_place_of_an_id_is_hinted_at(api: PhygitalsClient) -> None:
    """And an id in the place of a slug."""
    pack = (await api.list_packs())[0]
    assert pack.slug is not None
    assert await text_of(api.start_purchase(pack.slug, 1, "user"), PackNotFound) == (
        f"start_purchase: 400 VM not found (pack_id '{pack.slug}'); "
        "a pack's id is meant, not its slug, and it changes with a restock; list_packs() has both"
    )
    text = await text_of(api.list_chase_cards(pack.id), NotFound)
    assert text.endswith(f"(slug '{pack.id}'); a pack's slug is meant, not its id; list_packs() has both")


@pytest.mark.anyio
async def test_a_404_of_something_else_names_nothing() -> None:
    """A gateway that knows no such route says nothing of a pack."""
    api = PhygitalsClient(MemoryTransport(lambda _: Response(404, {}, b"no such route")), api_key=KEY)
    assert await text_of(api.start_purchase("p", 1, "user"), NotFound) == "start_purchase: 404 no such route"


@pytest.mark.anyio
async def test_what_is_named_is_printable_bounded_and_no_key() -> None:
    """Ids come from anywhere."""
    api = PhygitalsClient(MemoryTransport(Sandbox()), api_key=KEY)
    text = await text_of(api.get_inventory("a\n\x1b" * 500), UserNotFound)
    assert text.isprintable()
    assert len(text) < 300
    assert KEY not in await text_of(api.get_inventory(KEY), UserNotFound)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Sandbox(), "transport must be a Transport, not Sandbox; wrap it: MemoryTransport(sandbox)"),
        (print, "not builtin_function_or_method; wrap it: MemoryTransport("),
        (empty_inventories, "not function; wrap it: MemoryTransport(function)"),
        (AiohttpTransport, "not the class AiohttpTransport; make one of it: AiohttpTransport(...)"),
        (KEY, "; the API key goes by name: api_key=..."),
    ],
    ids=["sandbox", "builtin", "function", "class", "key"],
)
def test_what_is_no_transport_says_how_to_make_one(wrong: Any, text: str) -> None:
    """A sandbox and a function are what `MemoryTransport` takes."""
    with pytest.raises(ConfigurationError) as caught:
        PhygitalsClient(wrong, api_key=KEY)
    assert text in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"deadline": "30"}, "deadline must be a positive, finite number of seconds, not '30'"),
        ({"deadline": "30 s"}, ", not '30 s'"),
        ({"deadline": -1}, ", not -1"),
        ({"deadline": float("nan")}, ", not nan"),
        ({"deadline": 10**5000}, ", not so large a number"),
        ({"deadline": timedelta(seconds=30)}, ", not a timedelta"),
        ({"deadline": None}, ", not None"),
        ({"deadline": KEY}, ", not a text"),
        ({"attempt_timeout": 0}, "attempt_timeout must be a positive, finite number of seconds, not 0"),
        ({"max_in_flight": 0.5}, "max_in_flight must be a whole number of at least 1, not 0.5"),
        ({"max_in_flight": True}, ", not True"),
        ({"rate": 0}, "rate must be a positive, finite number of requests per second, not 0"),
        ({"environment": "staging"}, "must be 'production' or 'sandbox', not 'staging'"),
        ({"environment": KEY}, "must be 'production' or 'sandbox', not a text"),
    ],
)
def test_a_wrong_setting_is_echoed(setting: dict[str, Any], text: str) -> None:
    """Unless it could be a key, or is too long to read."""
    with pytest.raises(ConfigurationError) as caught:
        PhygitalsClient(MemoryTransport(Sandbox()), **{"api_key": KEY, **setting})
    assert str(caught.value).endswith(text)


@pytest.mark.anyio
async def test_a_wrong_argument_is_echoed(api: PhygitalsClient) -> None:
    """The same of what a call takes, and of a policy."""
    with pytest.raises(ConfigurationError, match=r"get_card: deadline must be .*, not 0$"):
        await api.get_card("a", deadline=0)
    with pytest.raises(ConfigurationError, match=r"limit must be a whole number of at least 1, not 0$"):
        api.stream_inventories([], limit=0)
    with pytest.raises(ConfigurationError, match=r"patience must be .*, not -1$"):
        api.stream_inventories([], patience=-1)
    with pytest.raises(ConfigurationError, match=r"retries must be a whole number from 0 to 10, not 11$"):
        RetryPolicy(retries=11)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("country", "echo"), [("USA", "'USA'"), ("", "''"), ("United States", "'United States'"), ("+1 512", "a text")]
)
async def test_a_country_is_two_letters(country: str, echo: str) -> None:
    """Any other length is refused before it is sent; whether a country is serviced is for the API to say."""

    def handler(_: Request) -> Response:
        return Response(422, {}, b'{"error": "Country not supported"}')

    transport = MemoryTransport(handler)
    api = PhygitalsClient(transport, api_key=KEY)
    text = await text_of(api.quote_shipping(["a"], attrs.evolve(HOME, country=country)), InvalidArgumentError)
    assert text.endswith(f"destination.country must be a code of two letters, such as US, not {echo}")
    assert transport.sent == []
    await text_of(api.quote_shipping(["a"], attrs.evolve(HOME, country="ZZ")), CountryNotSupported)


@pytest.mark.anyio
async def test_a_limit_that_is_lowered_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A limit above what the client has in flight is one that somebody asked for in vain; the default is not."""
    api = PhygitalsClient(MemoryTransport(empty_inventories), api_key=KEY, max_in_flight=10)
    for limit in (500, 10, 64):
        assert len(await api.get_inventories(["a", "b"], limit=limit)) == 2
    assert caplog.record_tuples == [
        ("phygitals_async", logging.WARNING, "limit=500 is lowered to the client's max_in_flight=10")
    ]
