"""Durations as Envoy can hold them. Knows no policy."""

from datetime import timedelta
from typing import Final

_LONGEST_MS: Final = 9_000_000_000_000
"""285 years: a little less than where Envoy refuses a duration as out of range."""


def milliseconds(count: int) -> timedelta:
    """That long; longer than Envoy can hold is as long as it can, shorter than nothing is nothing."""
    return timedelta(milliseconds=min(max(count, 0), _LONGEST_MS))
