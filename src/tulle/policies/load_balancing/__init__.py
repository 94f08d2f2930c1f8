"""The policy kind `load_balancing`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.fragments import Kind
from tulle.policies.load_balancing import envoy
from tulle.policies.load_balancing.spec import LoadBalancing

KIND = Kind("load_balancing", LoadBalancing, on_cluster=envoy.on_cluster, default=envoy.default)
