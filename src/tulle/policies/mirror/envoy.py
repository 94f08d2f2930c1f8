"""Shadow traffic, on the route. Source: Envoy `RequestMirrorPolicy`; Istio's mirror and mirrors."""

from tulle.policies.fragments import ClusterOf, RouteFragment
from tulle.policies.mirror.spec import Mirror
from tulle.xds import api

_PER_PERCENT = 10_000


def on_route(spec: Mirror, cluster_of: ClusterOf) -> RouteFragment:
    """One more mirror of the route; 0 percent mirrors nothing."""
    share = round(spec.percent * _PER_PERCENT)
    if share <= 0:
        return RouteFragment()
    policy = api.RouteAction.RequestMirrorPolicy(
        cluster=cluster_of(spec.target),
        runtime_fraction=api.RuntimeFractionalPercent(
            default_value=api.FractionalPercent(numerator=share, denominator="MILLION")
        ),
        trace_sampled=api.BoolValue(value=False),
    )
    return RouteFragment(action={"request_mirror_policies": [policy]})
