"""The policy kind `headers`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.fragments import Kind
from tulle.policies.headers import envoy
from tulle.policies.headers.spec import Headers

KIND = Kind("headers", Headers, on_route=envoy.on_route, on_target=envoy.on_target)
