"""A bound on the whole request, on the route. Source: Envoy `RouteAction.timeout`; Istio's HTTPRoute.timeout."""

from tulle.policies.durations import milliseconds
from tulle.policies.fragments import ClusterOf, RouteFragment
from tulle.policies.timeout.spec import Timeout


def on_route(spec: Timeout, _: ClusterOf) -> RouteFragment:
    """Retries included; 0 is no bound."""
    return RouteFragment(action={"timeout": milliseconds(spec.after_ms)})
