"""Header operations on a route or on one of its targets; setting Host rewrites the authority.

Envoy reads `%...%` in values as commands and refuses what is none, so every other `%` is doubled: a value a user meant
literally arrives literally. Source: Envoy `HeaderValueOption`, access-log command operators; Istio's Headers.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from tulle.model.keys import Labels
from tulle.policies.fragments import ClusterOf, RouteFragment
from tulle.policies.headers.spec import Headers
from tulle.xds import api

_HOST: Final = frozenset({"host", ":authority"})
_PLAIN: Final = (
    "DOWNSTREAM_REMOTE_ADDRESS|DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT|DOWNSTREAM_DIRECT_REMOTE_ADDRESS|"
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT|DOWNSTREAM_LOCAL_ADDRESS|DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT|"
    "DOWNSTREAM_LOCAL_PORT|DOWNSTREAM_LOCAL_URI_SAN|DOWNSTREAM_PEER_URI_SAN|DOWNSTREAM_PEER_SUBJECT|"
    "DOWNSTREAM_PEER_ISSUER|DOWNSTREAM_TLS_SESSION_ID|DOWNSTREAM_TLS_CIPHER|DOWNSTREAM_TLS_VERSION|"
    "DOWNSTREAM_PEER_FINGERPRINT_256|DOWNSTREAM_PEER_SERIAL|DOWNSTREAM_PEER_CERT|UPSTREAM_REMOTE_ADDRESS|"
    "UPSTREAM_CLUSTER|PROTOCOL|START_TIME|HOSTNAME|RESPONSE_CODE|RESPONSE_CODE_DETAILS|RESPONSE_FLAGS|"
    "ROUTE_NAME|VIRTUAL_CLUSTER_NAME|REQUESTED_SERVER_NAME|CONNECTION_ID|STREAM_ID"
)
_TOKEN: Final = re.compile(rf"%%|%(?:{_PLAIN})%|%(?:REQ|RESP)\([A-Za-z0-9:_\-?]+\)(?::[0-9]{{1,4}})?%|%")


def on_route(spec: Headers, _: ClusterOf) -> RouteFragment:
    """Operations of a whole rule."""
    host = _host(spec)
    return RouteFragment(route=_operations(spec), action={"host_rewrite_literal": host} if host else {})


def on_target(spec: Headers) -> Mapping[str, Any]:
    """Operations of one target."""
    host = _host(spec)
    return {**_operations(spec), **({"host_rewrite_literal": host} if host else {})}


def _operations(spec: Headers) -> Mapping[str, Any]:
    fields: dict[str, Any] = {
        "request_headers_to_add": [*_options(spec.request_set, "OVERWRITE"), *_options(spec.request_add, "APPEND")],
        "request_headers_to_remove": [name for name in spec.request_remove if name.lower() not in _HOST],
        "response_headers_to_add": [*_options(spec.response_set, "OVERWRITE"), *_options(spec.response_add, "APPEND")],
        "response_headers_to_remove": list(spec.response_remove),
    }
    return {name: value for name, value in fields.items() if value}


def _options(headers: Labels, action: str) -> "list[api.HeaderValueOption]":
    return [
        api.HeaderValueOption(
            header=api.HeaderValue(key=name, value=literal(value)),
            append_action="OVERWRITE_IF_EXISTS_OR_ADD" if action == "OVERWRITE" else "APPEND_IF_EXISTS_OR_ADD",
            keep_empty_value=value == "" or None,
        )
        for name, value in headers
        if name.lower() not in _HOST
    ]


def _host(spec: Headers) -> str:
    return next((value for name, value in spec.request_set if name.lower() in _HOST), "")


def literal(value: str) -> str:
    """The value as Envoy must get it: known commands stay, every other `%` is doubled."""
    return _TOKEN.sub(lambda found: "%%" if found[0] == "%" else found[0], value)
