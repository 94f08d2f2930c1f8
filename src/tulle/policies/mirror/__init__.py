"""The policy kind `mirror`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.fragments import Kind
from tulle.policies.mirror import envoy
from tulle.policies.mirror.spec import Mirror

KIND = Kind("mirror", Mirror, on_route=envoy.on_route)
