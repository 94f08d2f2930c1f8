"""What istiod (2026-08) needed on two quiet cores, from its decision to push until the last proxy had it. Constants, measured elsewhere."""

from __future__ import annotations

from typing import Final, NamedTuple


class Cost(NamedTuple):
    """0 where it was not measured."""

    seconds: float
    cpu_seconds: float = 0.0
    megabytes: float = 0.0


SHAPE: Final = (1000, 500)
"""Services (10 endpoints each) and sidecars."""
WEIGHT: Final = Cost(2.5, 4.0, 270)
SERVICE: Final = Cost(2.75, 4.2)
ENDPOINT: Final = Cost(0.14)
COLD: Final = Cost(51.5, 77.5, 4.9 * 500)
COLD_100: Final = Cost(10.6)
COLD_100_WARM: Final = Cost(2.6, 2.0)
"""100 sidecars, its cache warm and its limit of connections lifted."""
PEAK_MB: Final = 1681.0
FAILS: Final = (3000, 500)
"""It does not cope with this one."""

LIMITS: Final = {
    "weight": 1 / 20,
    "service": 1 / 10,
    "endpoint": 1.0,
    "cold": 1 / 4,
    "peak": 1 / 3,
    "coldOnDemand": 1 / 20,
}
"""What tulle promises, as a share of istiod's."""


def reference(phase: str, sidecars: int) -> Cost | None:
    """What a phase cost istiod; None where it was not measured at that size."""
    if sidecars == SHAPE[1]:
        return {"weight": WEIGHT, "service": SERVICE, "endpoint": ENDPOINT, "cold": COLD}.get(phase)
    return COLD_100_WARM if (sidecars, phase) == (100, "cold") else None
