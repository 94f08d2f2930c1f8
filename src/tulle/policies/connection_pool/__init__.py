"""The policy kind `connection_pool`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.connection_pool import envoy
from tulle.policies.connection_pool.spec import ConnectionPool
from tulle.policies.fragments import Kind

KIND = Kind("connection_pool", ConnectionPool, on_cluster=envoy.on_cluster, default=envoy.default)
