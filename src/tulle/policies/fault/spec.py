"""Faults on purpose."""

from msgspec import Struct

from tulle.model.origin import Origin


class Fault(Struct, frozen=True):
    """Istio's HTTPFaultInjection: a share of requests is delayed, a share answered with an error; delay first."""

    delay_ms: int | None
    """None: no delay."""
    delay_percent: float
    abort_http: int | None
    """Status of the answer; None: no HTTP abort."""
    abort_grpc: int | None
    """Canonical code of the answer (0 to 16); None: no gRPC abort."""
    abort_percent: float
    origin: Origin
