"""How numbers are written."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Three digits, or all of a whole number's."""
    size = abs(value)
    if size == int(size):
        return f"{value:,.0f}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(size)))}f}"


def quantity(value: float, unit: str) -> str:
    """With its unit, if it has any; a short time in milliseconds."""
    if unit == "s" and 0 < abs(value) < 0.1:
        return f"{number(value * 1e3)} ms"
    return f"{number(value)} {unit}".strip()


def percent(share: float) -> str:
    """A share of one; without a digit behind the point, unless it would be nothing."""
    return f"{share:,.0%}" if share >= 0.01 else f"{share:.2%}"
