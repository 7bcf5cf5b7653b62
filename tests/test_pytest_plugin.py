"""The fixtures that an application gets once the library is installed, in every kind of test it may have."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from phygitals_async import PhygitalsClient, Sandbox
from phygitals_async.clock import SkippingClock

pytest_plugins = ["pytester"]

# One program for all: it only differs in how its coroutines are run.
BODY: Final = """
    from decimal import Decimal
    from phygitals_async import PhygitalsClient, Sandbox, UserNotFound
    from phygitals_transports import MemoryTransport
    import pytest

    {mark}

    @pytest.fixture
    def seeded(phygitals_sandbox):
        return phygitals_sandbox.add_item("user", name="Card", buyback_price=Decimal("8.50"))

    async def test_they_share_one_sandbox(seeded, phygitals_client, phygitals_sandbox):
        assert type(phygitals_client) is PhygitalsClient and type(phygitals_sandbox) is Sandbox
        assert (await phygitals_client.get_inventory("user")).items == (seeded,)
        started = await phygitals_client.start_purchase(phygitals_sandbox.packs[0].id, 1, "user")
        assert len((await phygitals_client.get_inventory("user")).items) == 2

    async def test_each_test_has_its_own(phygitals_client, phygitals_sandbox):
        with pytest.raises(UserNotFound):
            await phygitals_client.get_inventory("user")

    async def test_what_was_sent(phygitals_transport, phygitals_client):
        assert phygitals_transport.sent == []
        with pytest.raises(UserNotFound):
            await phygitals_client.get_inventory("user")
        (request,) = phygitals_transport.sent
        assert (request.method, request.url.rpartition("/")[2]) == ("GET", "user")

    async def test_closing_is_allowed(phygitals_client):
        async with phygitals_client as api:
            await api.list_packs()

    async def test_a_second_client(phygitals_sandbox, phygitals_client, seeded):
        async with PhygitalsClient(MemoryTransport(phygitals_sandbox), api_key="sandbox-two") as second:
            await second.sell_back(seeded.id)
        assert (await phygitals_client.get_inventory("user")).items == ()
"""
# The plugins left out have nothing to do with it, and take long to load.
STRICT: Final = ("-W", "error", *(f"-pno:{name}" for name in ("cacheprovider", "schemathesis", "hypothesispytest")))


def run(pytester: pytest.Pytester, program: str, *arguments: str) -> pytest.RunResult:
    """Run a program of tests in a process of its own, in which a warning is an error."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(textwrap.dedent(program))
    return pytester.runpytest_subprocess(*STRICT, *arguments)


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_pytest_asyncio(pytester: pytest.Pytester, mode: str) -> None:
    """Both modes of pytest-asyncio."""
    mark = "pytestmark = pytest.mark.asyncio" if mode == "strict" else ""
    result = run(pytester, BODY.format(mark=mark), f"--asyncio-mode={mode}")
    result.assert_outcomes(passed=5)


@pytest.mark.parametrize("alone", [False, True], ids=["beside pytest-asyncio", "without pytest-asyncio"])
def test_anyio(pytester: pytest.Pytester, *, alone: bool) -> None:
    """The plugin of anyio, on asyncio and on trio."""
    mark = """pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(request):
        return request.param
    """
    if alone:
        pytester.makepyfile(textwrap.dedent(BODY.format(mark=mark)))
        result = pytester.runpytest_subprocess(*STRICT, "-p", "no:asyncio")
    else:
        result = run(pytester, BODY.format(mark=mark))
    result.assert_outcomes(passed=10)


def test_without_an_event_loop(pytester: pytest.Pytester) -> None:
    """A test that is no coroutine runs the client as it likes; a class of unittest takes it through a fixture."""
    program = """
        import asyncio
        import unittest
        from decimal import Decimal
        import pytest

        class Tests(unittest.IsolatedAsyncioTestCase):
            @pytest.fixture(autouse=True)
            def _take(self, phygitals_client):
                self.api = phygitals_client

            async def test_packs(self):
                assert len(await self.api.list_packs()) == 3

        def test_sync(phygitals_sandbox, phygitals_client):
            item = phygitals_sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
            assert asyncio.run(phygitals_client.get_inventory("user")).items == (item,)

        def test_repeatable_draws(phygitals_sandbox):
            from phygitals_async import Sandbox
            assert phygitals_sandbox.packs == Sandbox(seed=0).packs
    """
    run(pytester, program).assert_outcomes(passed=3)


def test_an_application_can_replace_the_sandbox(pytester: pytest.Pytester) -> None:
    """A fixture of the same name in a conftest is what the client then talks to."""
    pytester.makeconftest(
        textwrap.dedent("""
            import pytest
            from phygitals_async import Sandbox

            @pytest.fixture
            def phygitals_sandbox():
                sandbox = Sandbox(seed=5)
                sandbox.add_user("known")
                return sandbox
        """)
    )
    program = """
        import pytest

        @pytest.mark.asyncio
        async def test_known(phygitals_client):
            assert (await phygitals_client.get_inventory("known")).items == ()
    """
    run(pytester, program).assert_outcomes(passed=1)


def test_an_application_can_replace_the_transport(pytester: pytest.Pytester) -> None:
    """A fixture of the same name is what the client then sends through, such as one that loses answers."""
    program = """
        from decimal import Decimal
        import pytest
        from phygitals_async import ConnectionLost, OutcomeUnknown
        from phygitals_transports import MemoryTransport

        @pytest.fixture
        def phygitals_transport(phygitals_sandbox):
            def lose_the_answer(request):
                phygitals_sandbox(request)
                raise ConnectionLost("the answer was lost")
            return MemoryTransport(lose_the_answer)

        @pytest.mark.asyncio
        async def test_lost(phygitals_client, phygitals_sandbox):
            item = phygitals_sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
            with pytest.raises(OutcomeUnknown):
                await phygitals_client.sell_back(item.id)
    """
    run(pytester, program).assert_outcomes(passed=1)


def test_no_configuration_is_needed_or_read(pytester: pytest.Pytester) -> None:
    """Whatever the environment holds, such as production's settings, the client is one of the sandbox."""
    program = """
        import pytest

        SETTINGS = {
            "PHYGITALS_API_KEY": ["live-key", ""],
            "PHYGITALS_ENVIRONMENT": ["production", "sandbox", "nonsense"],
            "PHYGITALS_BASE_URL": ["https://api.phygitals.com", "https://partner.example/x", "nonsense"],
        }

        @pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in SETTINGS.items() for v in values])
        def test_client(monkeypatch, request, name, value):
            monkeypatch.setenv(name, value)
            client = request.getfixturevalue("phygitals_client")
            assert repr(client) == "<PhygitalsClient sandbox at https://api.phygitals.com/_/api/v1>"
    """
    run(pytester, program).assert_outcomes(passed=8)


def test_loading_it_by_name(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where plugins are not loaded by themselves, it is loaded by its module, before or after anyio's."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    ours, anyios = ("-p", "phygitals_transports.pytest_plugin"), ("-p", "anyio.pytest_plugin")
    mark = "pytestmark = pytest.mark.anyio"
    pytester.makepyfile(textwrap.dedent(BODY.format(mark=mark)))
    for plugins in ((*ours, *anyios), (*anyios, *ours)):
        result = pytester.runpytest_subprocess(*STRICT, *plugins)
        # Without a fixture of its own, anyio runs a test on every event loop it knows.
        outcomes = result.parseoutcomes()
        assert set(outcomes) == {"passed"}
        assert outcomes["passed"] % 5 == 0


def test_it_can_be_switched_off(pytester: pytest.Pytester) -> None:
    """`-p no:phygitals` leaves the fixtures out."""
    result = run(pytester, "def test_it(phygitals_client): pass", "-p", "no:phygitals")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'phygitals_client' not found*"])


def test_fixtures_are_described(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` tells what they are."""
    result = run(pytester, "", "--fixtures")
    result.stdout.fnmatch_lines(["phygitals_sandbox*", "*sandbox of its own for each test*"])
    result.stdout.fnmatch_lines(["phygitals_transport*", "*every request to `phygitals_sandbox`*"])
    result.stdout.fnmatch_lines(["phygitals_client*", "*client of `phygitals_sandbox`*"])
    result.stdout.fnmatch_lines(["phygitals_faults*", "*what `phygitals_client` sends through*"])
    result.stdout.fnmatch_lines(["phygitals_clock*", "*the client's pauses take no time*"])


@pytest.mark.anyio
async def test_in_this_process(
    phygitals_client: object, phygitals_sandbox: object, request: pytest.FixtureRequest
) -> None:
    """The fixtures are at work here too, each made once per test."""
    assert request.getfixturevalue("phygitals_client") is phygitals_client
    assert request.getfixturevalue("phygitals_sandbox") is phygitals_sandbox


TIME: Final = """
    from datetime import timedelta
    from decimal import Decimal
    from phygitals_async import ItemExpired, OutcomeUnknown, Response
    import pytest

    {mark}

    async def test_no_real_time(phygitals_client, phygitals_sandbox, phygitals_faults, phygitals_clock):
        api, sandbox = phygitals_client, phygitals_sandbox
        sandbox.options.pending_polls = 3
        bought = await api.purchase(sandbox.packs[0].id, 1, "user")
        assert phygitals_clock.ahead > 3
        phygitals_faults.fail("get_inventory", Response(429, {{"retry-after": "20"}}, b""))
        assert len((await api.get_inventory("user")).items) == 1
        assert phygitals_clock.ahead > 22
        phygitals_faults.delay("list_packs", 10)
        await api.list_packs()
        assert phygitals_clock.ahead > 32
        phygitals_clock.advance(timedelta(days=7))
        with pytest.raises(ItemExpired):
            await api.sell_back(bought.nfts[0].id)

    async def test_a_lost_answer(phygitals_faults, phygitals_client, phygitals_sandbox, phygitals_transport):
        item = phygitals_sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
        phygitals_faults.fail("sell_back", times=1, after_sending=True)
        with pytest.raises(OutcomeUnknown):
            await phygitals_client.sell_back(item.id)
        assert (await phygitals_client.get_inventory("user")).items == ()
        assert len(phygitals_transport.sent) == 2

    async def test_without_the_clock_time_is_real(phygitals_client, phygitals_sandbox):
        assert type(phygitals_client._engine.clock).__name__ == "RealClock"
"""


@pytest.mark.parametrize("plugin", ["asyncio", "anyio"])
def test_time_and_faults(pytester: pytest.Pytester, plugin: str) -> None:
    """A test that asks for the clock takes no real time, whichever plugin runs it; no other test has one."""
    mark = {
        "asyncio": "pytestmark = pytest.mark.asyncio",
        "anyio": """pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(request):
        return request.param
    """,
    }[plugin]
    result = run(pytester, TIME.format(mark=mark), "--asyncio-mode=auto" if plugin == "asyncio" else "-q")
    result.assert_outcomes(passed=3 if plugin == "asyncio" else 6)


@pytest.mark.anyio
async def test_the_clock_in_this_process(
    phygitals_client: PhygitalsClient, phygitals_sandbox: Sandbox, phygitals_clock: SkippingClock
) -> None:
    """It is the sandbox's and the client's."""
    phygitals_clock.advance(timedelta(days=7))
    assert phygitals_sandbox.now() - datetime.now(UTC) > timedelta(days=6)
    phygitals_sandbox.options.pending_polls = 1
    await phygitals_client.purchase(phygitals_sandbox.packs[0].id, 1, "user")
    assert phygitals_clock.ahead > 7 * 86400 + 0.7
