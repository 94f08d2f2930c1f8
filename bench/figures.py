"""Medians, quartiles, percentiles: the only arithmetic on measured values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import NamedTuple


class Spread(NamedTuple):
    """The middle of some values, and how far the half of them lies around it."""

    low: float
    middle: float
    high: float


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, linear between neighbours. Raises ValueError without values."""
    if not values:
        raise ValueError("no values")
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not {share}")
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    below, above = ordered[floor(place)], ordered[ceil(place)]
    return below + (above - below) * (place - floor(place))


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle."""
    return percentile(values, 0.5)


def spread(values: Sequence[float]) -> Spread:
    """Quartiles."""
    return Spread(*(percentile(values, share) for share in (0.25, 0.5, 0.75)))


def paired_ratios(values: Sequence[float], against: Sequence[float]) -> list[float]:
    """value / base, window by window of the same cycle. Raises ValueError if the cycles do not match."""
    return [value / base for value, base in zip(values, against, strict=True)]


def rounded(value: float, digits: int = 3) -> float:
    """As many significant digits, no more: what a noisy machine can say."""
    return float(f"{value:.{digits}g}")


def fraction(share: float) -> str:
    """A share as people say it: `1/34`, `1/2.9`, `0.62`; `0` where nothing is left of it."""
    if share <= 0:
        return "0"
    if share > 0.5:
        return f"{share:.2f}"
    parts = 1 / share
    return f"1/{parts:.0f}" if parts >= 10 else f"1/{parts:.1f}"


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much y grows per unit of x, by least squares. Raises ValueError unless two x differ."""
    middle_x = sum(x for x, _ in points) / max(1, len(points))
    middle_y = sum(y for _, y in points) / max(1, len(points))
    spread_x = sum((x - middle_x) ** 2 for x, _ in points)
    if not spread_x:
        raise ValueError("a slope needs two different places")
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread_x
