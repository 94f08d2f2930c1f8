"""Choosing among endpoints, on the cluster. What is hashed is part of the cluster's policy, so routes need not know it.

Source: Envoy's load-balancing policies (ConsistentHashingLbConfig.hash_policy); Istio's LoadBalancerSettings, whose
smallest ring is 1024.
"""

from typing import Final

from google.protobuf.message import Message

from tulle.model.keys import ObjectKey
from tulle.model.objects import MeshSettings
from tulle.model.origin import Origin
from tulle.policies.durations import milliseconds
from tulle.policies.fragments import ClusterFragment
from tulle.policies.load_balancing.spec import Algorithm, HashKey, LoadBalancing
from tulle.xds import api
from tulle.xds.schema import to_any

_POLICIES: Final = "envoy.load_balancing_policies"
_RING: Final = 1024
_LARGEST_RING: Final = 8_388_608
_MESH: Final = Origin(ObjectKey("", "", "MeshSettings", "", "mesh"))


def default(_: MeshSettings) -> LoadBalancing:
    """Istio's: the less busy of two."""
    return LoadBalancing(Algorithm.LEAST_REQUEST, None, None, None, None, _MESH)


def on_cluster(spec: LoadBalancing) -> ClusterFragment:
    """PASSTHROUGH goes where the client was going: the cluster then has no endpoints of its own."""
    match spec.algorithm:
        case Algorithm.PASSTHROUGH:
            original = {"type": "ORIGINAL_DST", "eds_cluster_config": None, "load_assignment": None}
            return ClusterFragment(cluster={**original, "lb_policy": "CLUSTER_PROVIDED"})
        case Algorithm.RING_HASH:
            ring = api.RingHash(
                minimum_ring_size=api.UInt64Value(value=min(spec.minimum_ring_size or _RING, _LARGEST_RING)),
                consistent_hashing_lb_config=_hashing(spec.hash_key),
            )
            return _policy("ring_hash", ring)
        case Algorithm.MAGLEV:
            size = api.UInt64Value(value=spec.table_size) if spec.table_size else None
            return _policy("maglev", api.Maglev(table_size=size, consistent_hashing_lb_config=_hashing(spec.hash_key)))
        case Algorithm.RANDOM:
            return _policy("random", api.Random())
        case Algorithm.ROUND_ROBIN:
            return _policy("round_robin", api.RoundRobin(slow_start_config=_slow_start(spec)))
        case Algorithm.LEAST_REQUEST:
            return _policy("least_request", api.LeastRequest(slow_start_config=_slow_start(spec)))


def _policy(name: str, config: Message) -> ClusterFragment:
    extension = api.TypedExtensionConfig(name=f"{_POLICIES}.{name}", typed_config=to_any(config))
    policy = api.LoadBalancingPolicy.Policy(typed_extension_config=extension)
    return ClusterFragment(cluster={"load_balancing_policy": api.LoadBalancingPolicy(policies=[policy])})


def _slow_start(spec: LoadBalancing) -> "api.SlowStartConfig | None":
    if not spec.warmup_ms:
        return None
    return api.SlowStartConfig(slow_start_window=milliseconds(spec.warmup_ms))


def _hashing(key: HashKey | None) -> "api.ConsistentHashingLbConfig | None":
    policy = _hash_policy(key) if key else None
    return api.ConsistentHashingLbConfig(hash_policy=[policy]) if policy else None


def _hash_policy(key: HashKey) -> "api.RouteAction.HashPolicy | None":
    policies = api.RouteAction.HashPolicy
    if key.header:
        return policies(header=policies.Header(header_name=key.header))
    if key.cookie:
        ttl = None if key.cookie_ttl_ms is None else milliseconds(key.cookie_ttl_ms)
        return policies(cookie=policies.Cookie(name=key.cookie, path=key.cookie_path, ttl=ttl))
    if key.query_parameter:
        return policies(query_parameter=policies.QueryParameter(name=key.query_parameter))
    if key.use_source_ip:
        return policies(connection_properties=policies.ConnectionProperties(source_ip=True))
    return None
