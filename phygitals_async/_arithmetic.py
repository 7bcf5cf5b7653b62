"""Decimal arithmetic in contexts of our own: the caller's may round, trap or bound what they like."""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import (
    MAX_EMAX,
    MAX_PREC,
    MIN_EMIN,
    ROUND_HALF_EVEN,
    Context,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    localcontext,
)


def exact() -> AbstractContextManager[Context]:
    """Let sums and products keep all their digits while the block runs. Nothing may be divided there."""
    return localcontext(_context(MAX_PREC))


def rounded() -> AbstractContextManager[Context]:
    """Let quotients have 28 digits, as Python's own context does, while the block runs."""
    return localcontext(_context(28))


def _context(digits: int) -> Context:
    # Whatever is left out would come from `decimal.DefaultContext`, which a program may have changed.
    return Context(
        prec=digits,
        rounding=ROUND_HALF_EVEN,
        Emin=MIN_EMIN,
        Emax=MAX_EMAX,
        capitals=1,
        clamp=0,
        flags=[],
        traps=[InvalidOperation, DivisionByZero, Overflow],
    )
