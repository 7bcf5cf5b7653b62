"""JSON to models and back, through one cattrs converter.

Structuring is strict and open: a wrong type is an error with its path and never a coercion, an unknown
field is ignored, an unknown enum value survives. Two paths do it. The fast one hands a class whole to
msgspec; the explaining one structures plain values with cattrs hooks, collects every bad place, and has
the last word whenever the fast one refuses. A class takes the fast path only while every type it reaches
still has this module's own hook, so a hook you register is never bypassed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from cattrs import Converter

from phygitals_async._structuring.hooks import is_native, register_hooks
from phygitals_async._structuring.kinds import is_union, type_name
from phygitals_async._structuring.number_texts import finder_of_odd_numbers
from phygitals_async._structuring.problems import BAD_VALUE, bounded_errors, problems_of
from phygitals_async._structuring.rows import readable_part
from phygitals_async._structuring.scalars import exact_number
from phygitals_async.errors import DecodeError

T = TypeVar("T")

# What may be half a character, written as JSON writes it. The fast parser refuses a whole body for one.
_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")


class PhygitalsConverter(Converter):
    """A cattrs converter with `loads` and `dumps` for JSON bytes. Build it with `build_converter()`.

    Register structure hooks on it as on any cattrs converter.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loads_hooks: dict[Any, Callable[[bytes], Any]] = {}
        super().__init__(*args, **kwargs)

    def register_structure_hook(self, cl: Any, func: Any = None) -> Any:
        """Register a hook as on any cattrs converter; one for a union takes precedence over the built-in ones."""
        if func is not None and is_union(cl):
            return self.register_structure_hook_func(lambda cls: cls == cl, func)
        self._loads_hooks.clear()
        return super().register_structure_hook(cl) if func is None else super().register_structure_hook(cl, func)

    def register_structure_hook_func(self, check_func: Any, func: Any) -> None:
        """Register a hook by predicate, as on any cattrs converter."""
        self._loads_hooks.clear()
        super().register_structure_hook_func(check_func, func)

    def register_structure_hook_factory(self, predicate: Any, factory: Any = None) -> Any:
        """Register a factory of hooks by predicate, as on any cattrs converter."""
        self._loads_hooks.clear()
        return super().register_structure_hook_factory(predicate, factory)

    def is_as_built_for(self, cl: type) -> bool:
        """Whether `loads` makes of any body what that of a new converter does."""
        # A subclass may read bodies in a way of its own.
        return type(self) is PhygitalsConverter and is_native(self.get_structure_hook(cl))

    def loads(self, data: bytes, cl: type[T]) -> T:
        """Decode JSON bytes into an instance of `cl`.

        Raises:
            DecodeError: The bytes are not JSON, or not that of a `cl`; it lists every bad place, and its `partial` has
                the rows that can be read.
        """
        hook = self._loads_hooks.get(cl)
        if hook is None:
            hook = self._loads_hooks[cl] = self.get_loads_hook(cl)
        result: T = hook(data)
        return result

    def get_loads_hook(self, cl: type[T]) -> Callable[[bytes], T]:
        """Return the function that `loads` uses for `cl`, as the hooks stand now."""

        def explain(data: bytes) -> T:
            return self._explain(data, cl)

        if not is_native(self.get_structure_hook(cl)):
            return explain
        try:
            decode = msgspec.json.Decoder(cl).decode
        except TypeError:
            # A user's type that the hooks cover and msgspec does not, such as a subclass of str.
            return explain

        has_odd_numbers = finder_of_odd_numbers(cl)

        def fast(data: bytes) -> T:
            try:
                # msgspec does not look inside the strings of unknown fields.
                if not data.isascii():
                    data.decode()
                if not has_odd_numbers(data):
                    return decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError):
                pass
            # Outside the handler: the other library's errors quote the body, and are not to be chained.
            return explain(data)

        return fast

    def dumps(self, obj: object) -> bytes:
        """Encode a model as the JSON bytes the API documents."""
        return msgspec.json.encode(self.unstructure(obj))

    def _explain(self, data: bytes, cl: type[T]) -> T:
        partial = None
        try:
            plain = _parse(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            problems = [f"$: not JSON: {error}" if data else "$: the body is empty"]
        else:
            try:
                return self._structure_bounded(plain, cl)
            except BAD_VALUE as error:
                problems = problems_of(error)
            partial = readable_part(data.decode(), plain, cl, problems, self._structure_bounded)
        raise DecodeError(f"not the documented {type_name(cl)}", problems=problems, partial=partial)

    def _structure_bounded(self, plain: Any, cl: type[T]) -> T:
        with bounded_errors():
            return self.structure(plain, cl)


def _parse(data: bytes) -> Any:
    """Return the plain values in a body, with all digits of its numbers.

    Half a character in one text spoils that text, which the hooks refuse, and not the body.
    """
    try:
        return msgspec.json.Decoder(float_hook=exact_number).decode(data)
    except msgspec.MsgspecError:
        if not _HALF.search(data):
            raise
    return json.loads(data.decode(), parse_float=exact_number, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is no number"
    raise ValueError(msg)


def build_converter() -> PhygitalsConverter:
    """Return a new converter for the models of `phygitals_async.models` and attrs classes like them.

    It is the extension point: register a hook for a type of your own, or structure a subclass of a model,
    and pass the converter to `PhygitalsClient(converter=...)`. USD become `Decimal`, exactly as written on
    the wire, and may be numeric strings there (API sheet, section 5); times become datetimes in UTC.
    """
    converter = PhygitalsConverter(detailed_validation=True)
    register_hooks(converter)
    return converter
