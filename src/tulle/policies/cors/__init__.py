"""The policy kind `cors`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.cors import envoy
from tulle.policies.cors.spec import Cors
from tulle.policies.fragments import Kind

KIND = Kind("cors", Cors, http_filters=envoy.http_filters, on_route=envoy.on_route)
