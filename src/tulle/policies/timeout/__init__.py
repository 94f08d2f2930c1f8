"""The policy kind `timeout`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.fragments import Kind
from tulle.policies.timeout import envoy
from tulle.policies.timeout.spec import Timeout

KIND = Kind("timeout", Timeout, on_route=envoy.on_route)
