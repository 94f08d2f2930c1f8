"""Faults: one filter, switched on by the routes that ask for it. Source: Envoy's fault injection filter."""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

from tulle.policies.durations import milliseconds
from tulle.policies.fault.spec import Fault
from tulle.policies.fragments import ClusterOf, RouteFragment
from tulle.xds import api

FILTER: Final = "envoy.filters.http.fault"
_PER_PERCENT: Final = 10_000
"""Shares are counted in millionths, so that 0.0001 % is not rounded away (Istio)."""


def http_filters() -> Sequence[tuple[str, Message]]:
    """The filter without a fault of its own."""
    return ((FILTER, api.Fault()),)


def on_route(spec: Fault, _: ClusterOf) -> RouteFragment:
    """The route's faults."""
    delay = abort = None
    if spec.delay_ms is not None:
        delay = api.FaultDelay(fixed_delay=milliseconds(spec.delay_ms), percentage=_share(spec.delay_percent))
    if spec.abort_http is not None:
        abort = api.FaultAbort(http_status=spec.abort_http, percentage=_share(spec.abort_percent))
    elif spec.abort_grpc is not None:
        abort = api.FaultAbort(grpc_status=spec.abort_grpc, percentage=_share(spec.abort_percent))
    return RouteFragment(filters={FILTER: api.Fault(delay=delay, abort=abort)})


def _share(percent: float) -> "api.FractionalPercent":
    return api.FractionalPercent(numerator=round(percent * _PER_PERCENT), denominator="MILLION")
