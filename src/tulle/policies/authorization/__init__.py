"""The policy kind `authorization`: what it says (spec) and what Envoy does for it (envoy)."""

from tulle.policies.authorization import envoy
from tulle.policies.authorization.spec import Authorization
from tulle.policies.fragments import Kind

KIND = Kind(
    "authorization",
    Authorization,
    inbound_http_filters=envoy.inbound_http_filters,
    on_inbound_route=envoy.on_inbound_route,
    needs_http=envoy.needs_http,
    inbound_network_filters=envoy.inbound_network_filters,
)
