"""Choosing among endpoints."""

from enum import StrEnum

from msgspec import Struct

from tulle.model.origin import Origin


class Algorithm(StrEnum):
    """Istio's LoadBalancerSettings.simple, and consistent hashing."""

    LEAST_REQUEST = "LEAST_REQUEST"
    ROUND_ROBIN = "ROUND_ROBIN"
    RANDOM = "RANDOM"
    PASSTHROUGH = "PASSTHROUGH"
    RING_HASH = "RING_HASH"
    MAGLEV = "MAGLEV"


class HashKey(Struct, frozen=True):
    """What is hashed: one of these."""

    header: str = ""
    cookie: str = ""
    cookie_path: str = ""
    cookie_ttl_ms: int | None = None
    use_source_ip: bool = False
    query_parameter: str = ""


class LoadBalancing(Struct, frozen=True):
    """Istio's LoadBalancerSettings."""

    algorithm: Algorithm
    hash_key: HashKey | None
    minimum_ring_size: int | None
    table_size: int | None
    warmup_ms: int | None
    origin: Origin
