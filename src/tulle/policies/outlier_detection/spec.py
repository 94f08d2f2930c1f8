"""Ejecting hosts that fail."""

from msgspec import Struct

from tulle.model.origin import Origin


class OutlierDetection(Struct, frozen=True):
    """Istio's OutlierDetection. None: not configured; 0 switches that detector off."""

    consecutive_5xx: int | None
    consecutive_gateway_errors: int | None
    consecutive_local_origin_failures: int | None
    split_external_local_origin: bool
    interval_ms: int
    base_ejection_ms: int
    max_ejection_percent: int
    min_health_percent: int
    origin: Origin
