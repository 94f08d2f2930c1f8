"""The policy kind `retry`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.fragments import Kind
from tulle.policies.retry import envoy
from tulle.policies.retry.spec import Retry

KIND = Kind("retry", Retry, on_route=envoy.on_route, default=envoy.default)
