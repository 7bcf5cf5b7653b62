"""What comes back: refusals judged by status, snippets without the key, and bodies that are no inventory."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phygitals_async import (
    AuthenticationError,
    BadRequest,
    DecodeError,
    Inventory,
    NotFound,
    PermissionDenied,
    PhygitalsClient,
    PhygitalsError,
    RateLimited,
    RedirectRefused,
    Response,
    Sent,
    ServerError,
    StatusError,
    TransactionFailed,
    UserNotFound,
    build_converter,
)
from phygitals_async._api.headers import parse_retry_after
from phygitals_transports import MemoryTransport
from structuring_support import with_nulls
from support import ONCE, fixture_bytes, fixture_json

pytestmark = pytest.mark.anyio

KEY = "sandbox-0123456789"
HTML = b"<!DOCTYPE html>\n<html><title>Attention Required! | Cloudflare</title></html>"
NOW = datetime(2026, 4, 18, 12, 0, 0, tzinfo=UTC)


async def _get(response: Response, *, api_key: str = KEY) -> Inventory:
    async with PhygitalsClient(MemoryTransport(lambda _: response), api_key=api_key, retry=ONCE) as api:
        return await api.get_inventory("user_abc123")


async def _refused(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await _get(Response(status, headers or {}, body))
    return caught.value


async def _undecodable(body: bytes, status: int = 200) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        await _get(Response(status, {"content-type": "application/json"}, body))
    return caught.value


def _error(text: object) -> bytes:
    return json.dumps({"error": text}).encode()


# Status before body


@pytest.mark.parametrize(
    ("status", "body", "expected", "message"),
    [
        (400, _error("Bad thing"), BadRequest, "Bad thing"),
        (401, _error("Invalid API key"), AuthenticationError, "Invalid API key"),
        (401, b"", AuthenticationError, ""),
        (402, b"", BadRequest, ""),
        (403, HTML, PermissionDenied, ""),
        (403, _error("Forbidden"), PermissionDenied, "Forbidden"),
        (404, _error("User not found"), UserNotFound, "User not found"),
        (404, b'{"error": "User not found", "trace": 5}', UserNotFound, "User not found"),
        (404, _error("user not found"), NotFound, "user not found"),
        (404, _error("User not found."), NotFound, "User not found."),
        (404, _error("Route not found"), NotFound, "Route not found"),
        (404, HTML, NotFound, ""),
        (404, b"", NotFound, ""),
        (404, b"User not found", NotFound, ""),
        (400, _error("User not found"), BadRequest, "User not found"),
        (500, _error("User not found"), ServerError, "User not found"),
        (405, b"", BadRequest, ""),
        (408, b"", BadRequest, ""),
        (418, b"short and stout", BadRequest, ""),
        (422, _error("Country not supported"), BadRequest, "Country not supported"),
        (429, _error("Slow down"), RateLimited, "Slow down"),
        (451, HTML, BadRequest, ""),
        (499, b"", BadRequest, ""),
        (500, _error("An unexpected error occurred"), ServerError, "An unexpected error occurred"),
        (502, HTML, ServerError, ""),
        (503, b"", ServerError, ""),
        (520, HTML, ServerError, ""),
        (530, HTML, ServerError, ""),
        (599, b"", ServerError, ""),
        (100, b"", StatusError, ""),
        (103, HTML, StatusError, ""),
        (199, fixture_bytes("inventory.json"), StatusError, ""),
        (600, HTML, StatusError, ""),
        (999, _error("odd"), StatusError, "odd"),
        (0, b"", StatusError, ""),
        (-1, b"", StatusError, ""),
        (12345, b"", StatusError, ""),
    ],
)
async def test_each_status_has_its_class(status: int, body: bytes, expected: type[StatusError], message: str) -> None:
    """The status alone chooses the class; only a documented text in a JSON body narrows it."""
    error = await _refused(status, body, {"content-type": "application/json"})
    assert type(error) is expected
    assert (error.status, error.message) == (status, message)
    assert (error.operation, error.attempts, error.sent) == ("get_inventory", 1, Sent.YES)
    assert str(error).startswith(f"get_inventory: {status} ")
    assert message in str(error)


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299])
async def test_any_2xx_is_an_answer(status: int) -> None:
    """An inventory under any 2xx is an inventory."""
    inventory = await _get(Response(status, {}, fixture_bytes("inventory.json")))
    assert inventory.user_id == "user_abc123"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
async def test_a_redirect_is_refused(status: int) -> None:
    """No 3xx is an answer, whatever its body or its `Location` says."""
    response = Response(status, {"location": "https://evil.example/"}, fixture_bytes("inventory.json"))
    with pytest.raises(RedirectRefused) as caught:
        await _get(response)
    error = caught.value
    assert (error.status, error.sent, error.operation, error.attempts) == (status, Sent.YES, "get_inventory", 1)
    assert "evil" not in str(error)


# Error bodies


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", ""),
        (b"null", ""),
        (b"[]", ""),
        (b'["error"]', ""),
        (b'[{"error": "x"}]', ""),
        (b"5", ""),
        (b"true", ""),
        (b'"error"', ""),
        (b"{}", ""),
        (b'{"error": null}', ""),
        (b'{"error": 5}', ""),
        (b'{"error": true}', ""),
        (b'{"error": ["x"]}', ""),
        (b'{"error": {"message": "x"}}', ""),
        (b'{"error": ""}', ""),
        (b'{"code": "x"}', ""),
        (b'{"error": "x"}', "x"),
        (b' \n{"error": "x"}\n', "x"),
        (b'{"message": "x"}', "x"),
        (b'{"error": "x", "message": "y"}', "x"),
        (b'{"error": "", "message": "y"}', "y"),
        (b'{"error": null, "message": "y"}', "y"),
        (b'{"error": {"deep": 1}, "message": "y"}', "y"),
        (b'{"error": "x", "message": 5}', "x"),
        (b'{"error": "x"', ""),
        (b'{"error": "x"} trailing', ""),
        (b'{"error": "\xff"}', ""),
        (b'{"error": "\\ud800"}', ""),
        (b'{"error": NaN}', ""),
        (b"\x00\x01\x02", ""),
        (b"\xef\xbb\xbf{}", ""),
        (b"[" * 100_000, ""),
        (b'{"a":' * 100_000, ""),
        (b'{"error": ' + b"1" * 5000 + b"}", ""),
        ('{"error": "Größe 😀"}'.encode(), "Größe 😀"),
    ],
)
async def test_an_error_body_of_any_shape_is_survived(body: bytes, message: str) -> None:
    """`error` is read, else `message`, where the body is an object that has them as text."""
    error = await _refused(400, body)
    assert type(error) is BadRequest
    assert error.message == message
    assert str(error).isprintable()


async def test_an_error_body_beyond_all_measure_is_not_parsed() -> None:
    """A body of megabytes is no message of the API; its beginning is shown."""
    error = await _refused(500, b'{"error": "x", "padding": "' + b"a" * 2**20 + b'"}')
    assert error.message == ""
    assert error.snippet.startswith('{"error": "x"')
    assert len(error.snippet) == 200


@pytest.mark.parametrize(
    ("body", "snippet"),
    [
        (b"", ""),
        (b"a" * 199, "a" * 199),
        (b"a" * 200, "a" * 200),
        (b"a" * 201, "a" * 200),
        ("😀".encode() * 300, "😀" * 200),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a\r\nb\tc\x00d\x1b[31me\x7f", "a  b c d [31me "),
        ("a\u202eb\u2028c\u200bd\u0085e".encode(), "a b c d e"),
        (b"key: " + KEY.encode(), "key: ***"),
    ],
)
async def test_the_snippet_is_bounded_printable_text(body: bytes, snippet: str) -> None:
    """Whatever came, what is kept of it can go to a log or a terminal."""
    for error in (await _refused(500, body), await _undecodable(body)):
        assert error.snippet == snippet


@pytest.mark.parametrize("key", [KEY, "sandbox-" + "k" * 5000, "live-{}%s+/=a|b[c"])
@pytest.mark.parametrize("before", [0, 5, 180, 190, 198, 199, 200, 201, 799, 800, 801, 3000])
@pytest.mark.parametrize("filler", ["x", "é", "😀"])
async def test_an_echoed_key_is_masked_also_where_the_cut_falls_inside_it(key: str, before: int, filler: str) -> None:
    """No part of the key is in any text of the error, wherever in the body it stands."""
    echo = filler * before + key + "tail"
    for status, body in ((401, echo.encode()), (401, _error(echo)), (200, echo.encode()), (200, _error(echo))):
        with pytest.raises(PhygitalsError) as caught:
            await _get(Response(status, {}, body), api_key=key)
        error = caught.value
        shown = f"{error} {error!r} {error.args} {vars(error)}"
        assert key[:12] not in shown
        assert key.encode() not in pickle.dumps(error)


_PIECES = st.lists(st.one_of(st.just(KEY), st.text("xyz é😀\n", max_size=60)), max_size=60)


@example([KEY] * 60)
@example([KEY] * 11 + ["x" * 100] + [KEY] * 60)
@example(["x" * 199, KEY])
@given(_PIECES)
async def test_no_part_of_an_echoed_key_is_left_however_often_it_is_echoed(pieces: list[str]) -> None:
    """Masking shortens the text, and the cut still never leaves half a key."""
    echo = "".join(pieces)
    error = await _refused(500, echo.encode())
    assert set(error.snippet) <= set("xyz é😀*\ufffd")
    error = await _refused(500, json.dumps({"error": echo}, ensure_ascii=False).encode())
    assert set(error.message) <= set("xyz é😀*")
    inside = error.snippet.removeprefix('{"error": "').removesuffix('"}').replace("\\n", " ")
    assert set(inside) <= set("xyz é😀*\ufffd\\")


async def test_a_message_is_bounded_and_printable() -> None:
    """The API's own sentence is cut and cleaned like a snippet, also in `str`."""
    error = await _refused(400, _error("\x1b[31m" + "a" * 500 + "\n"))
    assert error.message == " [31m" + "a" * 195
    assert str(error) == f"get_inventory: 400 {error.message}"


async def test_an_empty_body_is_said_to_be_empty() -> None:
    """An error without any text still says something."""
    assert str(await _refused(503)) == "get_inventory: 503 (empty body)"
    assert str(await _refused(503, b"upstream down")) == "get_inventory: 503 upstream down"


@pytest.mark.parametrize("key", [KEY, "sandbox-" + "k" * 300])
async def test_a_refusal_inside_a_2xx_is_masked_and_bounded_too(key: str) -> None:
    """A failure that comes as a 200 is a refusal with that status, and shows no key."""
    body = json.dumps({"error": f"\x1b[31m{key} failed {'x' * 500}", "status": "failed"}).encode()
    transport = MemoryTransport(lambda _: Response(202, {}, body))
    async with PhygitalsClient(transport, api_key=key, retry=ONCE) as api:
        with pytest.raises(TransactionFailed) as caught:
            await api.get_purchase("s")
    error = caught.value
    assert (error.status, error.operation) == (202, "get_purchase")
    assert error.message.startswith(" [31m*** failed xxx")
    assert len(error.message) <= 200
    assert key not in f"{error} {error!r} {vars(error)}"


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        (" ", None),
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("007", 7.0),
        ("1.5", 1.5),
        ("86400", 86400.0),
        ("999999999999999", 999999999999999.0),
        ("Sat, 18 Apr 2026 12:00:30 GMT", 30.0),
        ("Sat, 18 Apr 2026 12:00:30 -0000", 30.0),
        ("Sat, 18 Apr 2026 14:01:00 +0200", 60.0),
        ("Sat, 18 Apr 2026 12:00:00 GMT", 0.0),
        ("Sat, 18 Apr 2026 11:00:00 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Saturday, 18-Apr-26 12:00:30 GMT", 30.0),
        ("-1", None),
        ("+5", None),
        ("5s", None),
        ("5, 6", None),
        ("1e3", None),
        ("0x10", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("Infinity", None),
        (".5", None),
        ("٣", None),
        ("1" * 16, float("1" * 16)),
        ("1" * 10_000, float("inf")),
        ("soon", None),
        ("Sat, 99 Apr 2026 12:00:30 GMT", None),
        ("Sat, 18 Apr 2026 99:00:30 GMT", None),
        ("Sat, 18 Apr 99999 12:00:30 GMT", None),
        ("Sat, 18 Apr 99999999999999999999 12:00:30 GMT", None),
        ("Sat, 18 Apr 2026 12:00:30 +9999", None),
        ("Sat, 18 Apr 2026 12:00:30 +99999999999999999", None),
        ("Sat, 18 Apr 2026 12:00:99999999999999999999 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    """What can be used is used; a past date means now; the rest means that nothing was said."""
    assert parse_retry_after(value, NOW) == seconds


@example("Sat, 18 Apr 2026 12:00:30 +99999999999999999")
@example("0 0 0 0:0:0 0")
@given(
    st.one_of(
        st.text(max_size=40),
        st.from_regex(
            r"[A-Z][a-z]{2}, [0-9]{1,25} [A-Z][a-z]{2} [0-9]{1,25} [0-9]{1,25}:[0-9]{1,5}:[0-9]{1,5} .{0,25}"
        ),
        st.lists(
            st.sampled_from(["Sat", ",", " ", "18", "Apr", "2026", "99999999999", ":", "00", "+", "-", "GMT"])
        ).map("".join),
    )
)
def test_no_retry_after_can_raise_or_ask_for_nonsense(value: str) -> None:
    """Any text gives None or a number of seconds that is not negative."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or seconds >= 0


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - made UTC below.
def test_a_date_in_http_form_is_read_exactly(moment: datetime) -> None:
    """The seconds are those between now and the date, and never fewer than none."""
    from email.utils import format_datetime

    aware = moment.replace(microsecond=0, tzinfo=UTC)
    expected = max(timedelta(0), aware - NOW).total_seconds()
    assert parse_retry_after(format_datetime(aware, usegmt=True), NOW) == expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, None), ({"retry-after": "7"}, 7.0), ({"retry-after": "nonsense"}, None), ({"date": "7"}, None)],
)
async def test_a_429_carries_the_wait(headers: dict[str, str], seconds: float | None) -> None:
    """`RateLimited.retry_after` is what the header says."""
    error = await _refused(429, HTML, headers)
    assert isinstance(error, RateLimited)
    assert error.retry_after == seconds
    far = await _refused(429, b"", {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"})
    assert isinstance(far, RateLimited)
    assert far.retry_after is not None
    assert far.retry_after > 10**9


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Sat, 18 Apr 2026 12:00:00 GMT", 30.0),
        ("Sat, 18 Apr 2026 12:00:29 GMT", 1.0),
        ("Sat, 18 Apr 2026 12:00:31 GMT", 0.0),
        ("Sat, 18 Apr 2026 14:00:00 +0200", 30.0),
    ],
)
@pytest.mark.parametrize("name", ["date", "Date"])
async def test_a_date_to_retry_after_is_the_servers(name: str, date: str, seconds: float) -> None:
    """It is compared with the answer's own `Date`, however wrong this machine's clock is."""
    error = await _refused(429, b"", {"retry-after": "Sat, 18 Apr 2026 12:00:30 GMT", name: date})
    assert error.retry_after == seconds


@pytest.mark.parametrize("headers", [{}, {"date": "yesterday"}])
async def test_without_a_date_of_the_servers_this_machines_clock_counts(headers: dict[str, str]) -> None:
    """A moment long ago is over, and one far ahead is far ahead."""
    past = await _refused(429, b"", {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT", **headers})
    assert past.retry_after == 0.0
    future = await _refused(429, b"", {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT", **headers})
    assert future.retry_after is not None
    assert future.retry_after > 10**9


# The answer to another question


@pytest.mark.parametrize("user_id", ["user_abc124", "User_abc123", "user_abc123 ", ""])
async def test_an_inventory_of_somebody_else_is_refused(user_id: str) -> None:
    """A confused connection, proxy or cache may bring one; it is not shown as the one asked for."""
    error = await _undecodable(json.dumps({"user_id": user_id, "items": []}).encode())
    assert error.summary == "the answer to another question"
    assert error.problems == ("$.user_id: not the one asked for",)
    assert (error.status, error.attempts, error.sent) == (200, 1, Sent.YES)


async def test_an_order_of_somebody_else_is_refused() -> None:
    """As an inventory is; the order asked for is returned."""
    body = fixture_bytes("ship-order.json")
    async with PhygitalsClient(MemoryTransport(lambda _: Response(200, {}, body)), api_key=KEY, retry=ONCE) as api:
        assert (await api.get_shipping_order("order_123")).order_id == "order_123"
        with pytest.raises(DecodeError, match=r"the answer to another question; \$\.order_id: not the one asked for"):
            await api.get_shipping_order("order_124")


async def test_a_hook_that_changes_the_id_changes_no_verdict() -> None:
    """It is the answer's own id that counts: what a caller makes of it is the caller's."""
    converter = build_converter()
    converter.register_structure_hook(str, lambda value, _: value.upper())
    body = b'{"user_id": "user_abc123", "items": []}'
    transport = MemoryTransport(lambda _: Response(200, {}, body))
    async with PhygitalsClient(transport, api_key=KEY, retry=ONCE, converter=converter) as api:
        assert (await api.get_inventory("user_abc123")).user_id == "USER_ABC123"


# 2xx bodies that are no inventory


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "$: the body is empty"),
        (b"null", "$: expected an object, got null"),
        (b"[]", "$: expected an object, got an array"),
        (b"5", "$: expected an object, got an integer"),
        (b"5.5", "$: expected an object, got a number"),
        (b"true", "$: expected an object, got a boolean"),
        (b'"text"', "$: expected an object, got a string"),
        (HTML, "$: not JSON"),
        (b" ", "$: not JSON"),
        (b"{", "$: not JSON"),
        (b"{}x", "$: not JSON"),
        (b'{"user_id": "u", "items": [}', "$: not JSON"),
        (b'{"user_id": "\xff", "items": []}', "$: not JSON"),
        (b'{"user_id": "u", "items": [], "x": "\xff"}', "$: not JSON"),
        (b'{"user_id": "u", "items": [], "\xff": 1}', "$: not JSON"),
        (b'{"user_id": "\\ud800", "items": []}', "$.user_id: holds half a character, an unpaired surrogate"),
        (b"\xef\xbb\xbf{}", "$: not JSON"),
        (b"\x1f\x8b\x08\x00", "$: not JSON"),
        (b"[" * 100_000, "$: not JSON"),
        (b'{"items":' * 100_000, "$: not JSON"),
    ],
)
@pytest.mark.parametrize("status", [200, 204])
async def test_a_body_that_is_no_inventory_is_explained(body: bytes, problem: str, status: int) -> None:
    """The error says what was wrong with the whole body, with status, operation and a snippet."""
    error = await _undecodable(body, status)
    (line,) = error.problems
    assert line == problem or (problem == "$: not JSON" and line.startswith("$: not JSON: "))
    assert (error.status, error.operation, error.attempts, error.sent) == (status, "get_inventory", 1, Sent.YES)
    assert len(error.snippet) <= 200
    assert bool(error.snippet) == bool(body)
    assert str(error).startswith("get_inventory: not the documented Inventory; $")


async def test_every_truncation_is_noticed() -> None:
    """No beginning of an inventory passes for one."""
    whole = fixture_bytes("inventory.json").rstrip()
    for length in range(0, len(whole), 11):
        error = await _undecodable(whole[:length])
        assert len(error.problems) == 1


_ITEM = "$.items[0]"
_WRONG: list[tuple[str, list[str | int], object, str]] = [
    ("$.user_id", ["user_id"], None, "expected a string, got null"),
    ("$.items", ["items"], None, "expected an array, got null"),
    ("$.items", ["items"], {}, "expected an array, got an object"),
    ("$.items", ["items"], "x", "expected an array, got a string"),
    (_ITEM, ["items", 0], None, "expected an object, got null"),
    (_ITEM, ["items", 0], [], "expected an object, got an array"),
    (f"{_ITEM}.id", ["items", 0, "id"], 5, "expected a string, got an integer"),
    (f"{_ITEM}.claw_id", ["items", 0, "claw_id"], None, "expected a string, got null"),
    (f"{_ITEM}.claw_slug", ["items", 0, "claw_slug"], 1.5, "expected a string, got a number"),
    (
        f"{_ITEM}.buyback_price",
        ["items", 0, "buyback_price"],
        None,
        "expected a number or a numeric string, got null",
    ),
    (
        f"{_ITEM}.buyback_price",
        ["items", 0, "buyback_price"],
        True,
        "expected a number or a numeric string, got a boolean",
    ),
    (
        f"{_ITEM}.buyback_price",
        ["items", 0, "buyback_price"],
        "free",
        "expected a number or a numeric string, got other text",
    ),
    (f"{_ITEM}.mint_address", ["items", 0, "mint_address"], False, "expected a string, got a boolean"),
    (f"{_ITEM}.purchased_at", ["items", 0, "purchased_at"], 0, "expected an ISO 8601 time, got an integer"),
    (
        f"{_ITEM}.purchased_at",
        ["items", 0, "purchased_at"],
        "yesterday",
        "expected an ISO 8601 time with its UTC offset, got other text",
    ),
    (
        f"{_ITEM}.purchased_at",
        ["items", 0, "purchased_at"],
        "2026-04-18T19:05:14",
        "expected an ISO 8601 time with its UTC offset, got a time without one",
    ),
    (
        f"{_ITEM}.buyback_expires_at",
        ["items", 0, "buyback_expires_at"],
        {},
        "expected an ISO 8601 time, got an object",
    ),
    (f"{_ITEM}.type", ["items", 0, "type"], 5, "expected a string, got an integer"),
    (f"{_ITEM}.collection_address", ["items", 0, "collection_address"], [], "expected a string, got an array"),
    (f"{_ITEM}.token_standard", ["items", 0, "token_standard"], {}, "expected a string, got an object"),
    (f"{_ITEM}.content", ["items", 0, "content"], None, "expected an object, got null"),
    (f"{_ITEM}.content.links", ["items", 0, "content", "links"], "x", "expected an object, got a string"),
    (
        f"{_ITEM}.content.links.back_image",
        ["items", 0, "content", "links", "back_image"],
        5,
        "expected a string, got an integer",
    ),
    (f"{_ITEM}.content.metadata", ["items", 0, "content", "metadata"], [], "expected an object, got an array"),
    (
        f"{_ITEM}.content.metadata.name",
        ["items", 0, "content", "metadata", "name"],
        None,
        "expected a string, got null",
    ),
    (
        f"{_ITEM}.content.metadata.attributes",
        ["items", 0, "content", "metadata", "attributes"],
        {},
        "expected an array, got an object",
    ),
    (
        f"{_ITEM}.content.metadata.attributes[1]",
        ["items", 0, "content", "metadata", "attributes", 1],
        "Year",
        "expected an object, got a string",
    ),
    (
        f"{_ITEM}.content.metadata.attributes[1].trait_type",
        ["items", 0, "content", "metadata", "attributes", 1, "trait_type"],
        5,
        "expected a string, got an integer",
    ),
    (
        f"{_ITEM}.content.metadata.attributes[0].value",
        ["items", 0, "content", "metadata", "attributes", 0, "value"],
        [],
        "expected a string or an integer or a number, got an array",
    ),
    (
        f"{_ITEM}.content.metadata.attributes[0].value",
        ["items", 0, "content", "metadata", "attributes", 0, "value"],
        True,
        "expected a string or an integer or a number, got a boolean",
    ),
]


def _put(plain: Any, path: list[str | int], value: object) -> None:
    *way, last = path
    for step in way:
        plain = plain[step]
    plain[last] = value


@pytest.mark.parametrize(("where", "path", "value", "what"), _WRONG)
async def test_a_wrong_type_is_reported_with_its_path(
    where: str, path: list[str | int], value: object, what: str
) -> None:
    """Every field is held to its documented type, and the error names the field."""
    plain = fixture_json("inventory.json")
    _put(plain, path, value)
    error = await _undecodable(json.dumps(plain).encode())
    assert error.problems == (f"{where}: {what}",)
    assert error.status == 200


@pytest.mark.parametrize(
    ("where", "path"),
    [
        ("$", ["user_id"]),
        ("$", ["items"]),
        (_ITEM, ["items", 0, "id"]),
        (_ITEM, ["items", 0, "claw_id"]),
        (_ITEM, ["items", 0, "buyback_price"]),
        (_ITEM, ["items", 0, "purchased_at"]),
        (_ITEM, ["items", 0, "buyback_expires_at"]),
        (_ITEM, ["items", 0, "content"]),
        (f"{_ITEM}.content", ["items", 0, "content", "metadata"]),
        (f"{_ITEM}.content.metadata", ["items", 0, "content", "metadata", "name"]),
    ],
)
async def test_a_missing_field_is_reported_with_its_path(where: str, path: list[str | int]) -> None:
    """A required field that is left out is named."""
    plain = fixture_json("inventory.json")
    parent = plain
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    error = await _undecodable(json.dumps(plain).encode())
    assert error.problems == (f"{where}.{path[-1]}: missing",)


_NULLABLE: list[list[str | int]] = [
    ["claw_slug"],
    ["mint_address"],
    ["type"],
    ["collection_address"],
    ["token_standard"],
    ["content", "metadata", "image"],
    ["content", "metadata", "attributes", 0, "value"],
    ["content", "metadata", "back_image"],
    ["content", "links", "image"],
    ["content", "links", "back_image"],
]


@pytest.mark.parametrize("path", _NULLABLE)
async def test_what_may_be_null_may_be_missing(path: list[str]) -> None:
    """A field that is null where there is nothing is None where the answer lacks it, and is written as null."""
    plain = with_nulls(fixture_json("inventory.json"))
    parent = plain["items"][0]
    for step in path[:-1]:
        parent = parent[step]
    del parent[path[-1]]
    converter = build_converter()
    inventory = converter.loads(json.dumps(plain).encode(), Inventory)
    parent[path[-1]] = None
    assert converter.loads(json.dumps(plain).encode(), Inventory) == inventory
    assert converter.unstructure(inventory) == plain


async def test_every_bad_place_is_listed() -> None:
    """One look at the error is enough to see all that changed; `str` shows the first five of them."""
    plain = fixture_json("inventory.json")
    plain["items"] = [json.loads(json.dumps(plain["items"][0])) for _ in range(3)]
    plain["user_id"] = None
    plain["items"][0]["id"] = 5
    plain["items"][0]["purchased_at"] = "x"
    del plain["items"][1]["claw_id"]
    plain["items"][1]["content"]["metadata"]["attributes"][1]["value"] = []
    plain["items"][2]["content"]["links"] = 5
    plain["items"].append(None)
    error = await _undecodable(json.dumps(plain).encode())
    assert sorted(error.problems) == [
        "$.items[0].id: expected a string, got an integer",
        "$.items[0].purchased_at: expected an ISO 8601 time with its UTC offset, got other text",
        "$.items[1].claw_id: missing",
        "$.items[1].content.metadata.attributes[1].value: expected a string or an integer or a number, got an array",
        "$.items[2].content.links: expected an object, got an integer",
        "$.items[3]: expected an object, got null",
        "$.user_id: expected a string, got null",
    ]
    text = str(error)
    assert sum(problem in text for problem in error.problems) == 5
    assert "; and 2 more; body: {" in text
    assert len(text) < 1000


async def test_an_answer_in_which_nothing_is_right_stays_printable_and_short() -> None:
    """A flood of problems and a hostile body make no flood of text."""
    body = json.dumps({"user_id": "\x1b[31m\u202e", "items": [None] * 5000}, ensure_ascii=False).encode()
    error = await _undecodable(body)
    assert len(error.problems) == 5000
    assert len(str(error)) < 1000
    assert str(error).isprintable()


# Purchases


RESULT = {"session_id": "s", "user_id": "u"}
ITEM = {"id": "i", "buyback_price": 8.5, "content": {"metadata": {"name": "n", "image": None}}}


async def _purchase(body: object) -> object:
    transport = MemoryTransport(lambda _: Response(200, {}, json.dumps(body).encode()))
    async with PhygitalsClient(transport, api_key=KEY, retry=ONCE) as api:
        return await api.get_purchase("s")


@pytest.mark.parametrize(
    "body",
    [
        {"status": "pending", "error": ""},
        {"result": {**RESULT, "nfts": []}, "error": ""},
        {"result": RESULT, "error": None},
    ],
)
async def test_an_empty_error_fails_no_purchase(body: object) -> None:
    """A living purchase that is called failed invites a second one."""
    assert await _purchase(body) is None


@pytest.mark.parametrize("failure", [{"error": "mint failed"}, {"status": "failed"}])
async def test_a_purchase_is_not_both_fulfilled_and_failed(failure: dict[str, str]) -> None:
    """Nobody can tell which of the two is true."""
    with pytest.raises(DecodeError, match="both fulfilled and failed") as caught:
        await _purchase({"result": {**RESULT, "nfts": [ITEM]}, **failure})
    assert caught.value.problems == ("$.result: contradicts error or status",)
    with pytest.raises(TransactionFailed):
        await _purchase({"result": {**RESULT, "nfts": []}, **failure})
