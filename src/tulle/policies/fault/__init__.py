"""The policy kind `fault`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.fault import envoy
from tulle.policies.fault.spec import Fault
from tulle.policies.fragments import Kind

KIND = Kind("fault", Fault, http_filters=envoy.http_filters, on_route=envoy.on_route)
