"""What every public method does beside its work."""

from __future__ import annotations

import inspect
import traceback
import typing
from typing import Any

import pytest

from phygitals_async import ConfigurationError, PhygitalsClient, UserNotFound, sync
from phygitals_transports import MemoryTransport
from support import empty_inventories
from sync_support import KEY, Api

CLIENTS = [PhygitalsClient, sync.PhygitalsClient]


def _make(cls: Any, **settings: Any) -> Any:
    return cls(MemoryTransport(empty_inventories), api_key=KEY, **settings)


@pytest.mark.anyio
async def test_an_error_shows_the_callers_frame_and_one_of_ours() -> None:
    """Whoever prints a 404 looks for the line of their own that asked."""
    api = PhygitalsClient(Api().transport, api_key=KEY)
    with pytest.raises(UserNotFound) as caught:
        await api.get_inventory("nobody")
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames] == ["test_an_error_shows_the_callers_frame_and_one_of_ours", "call"]
    with pytest.raises(ConfigurationError) as refused:
        api.watch_order("o", interval=0)
    assert len(traceback.extract_tb(refused.value.__traceback__)) == 2


@pytest.mark.anyio
async def test_timeout_points_to_deadline() -> None:
    """That is what other libraries call it."""
    api = _make(PhygitalsClient)
    with pytest.raises(TypeError, match=r"^PhygitalsClient.get_inventory\(\) takes no timeout: .* deadline=30$"):
        await api.get_inventory("a", timeout=5)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'user_id'"):
        await api.get_inventory()


@pytest.mark.parametrize("cls", CLIENTS)
def test_timeout_points_to_deadline_everywhere(cls: Any) -> None:
    """In the constructor, and in methods that are no coroutines."""
    with pytest.raises(TypeError, match=r"^PhygitalsClient\(\) takes no timeout: .* deadline=30$"):
        _make(cls, timeout=5)
    with pytest.raises(TypeError, match=r"^PhygitalsClient.watch_order\(\) takes no timeout"):
        _make(cls).watch_order("o", timeout=5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dead_line'"):
        _make(cls, dead_line=5)


@pytest.mark.parametrize("cls", CLIENTS)
def test_a_refused_setting_shows_no_key(cls: Any) -> None:
    """Error reporters show the local variables of every frame, whatever the key was given as."""
    for wrong in ({"api_key": "", "base_url": KEY}, {"api_key": KEY, "path_prefix": KEY}, {"api_key": KEY, "oops": 1}):
        with pytest.raises((ConfigurationError, TypeError)) as caught:
            cls(MemoryTransport(empty_inventories), **wrong)
        shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        ours = [frame for frame in shown.stack if frame.filename != __file__]
        assert ours
        assert not [frame for frame in ours if KEY in str(frame.locals)]
    with pytest.raises(ConfigurationError) as caught:
        cls(KEY)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert not [frame for frame in shown.stack if frame.filename != __file__ and KEY in str(frame.locals)]


@pytest.mark.parametrize("cls", CLIENTS)
def test_signatures_are_those_that_are_written(cls: Any) -> None:
    """For editors, for `help`, for whatever reads annotations."""
    assert list(inspect.signature(cls).parameters)[:2] == ["transport", "api_key"]
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_") and name != "call_with_response":
            assert "args" not in inspect.signature(method).parameters
            assert "return" in typing.get_type_hints(method)
    assert inspect.iscoroutinefunction(PhygitalsClient.get_inventory)
