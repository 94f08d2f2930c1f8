"""Cross-origin requests: one filter, switched on by the routes that have a policy. Source: Envoy's CORS filter."""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

from tulle.model.intent import MatchKind, StringMatch
from tulle.policies.cors.spec import Cors
from tulle.policies.fragments import ClusterOf, RouteFragment
from tulle.xds import api

FILTER: Final = "envoy.filters.http.cors"


def http_filters() -> Sequence[tuple[str, Message]]:
    """The filter without a policy of its own."""
    return ((FILTER, api.Cors()),)


def on_route(spec: Cors, _: ClusterOf) -> RouteFragment:
    """The route's policy. Preflights from origins that are not allowed go on to the service unless the spec says no."""
    policy = api.CorsPolicy(
        allow_origin_string_match=[_origin(match) for match in spec.allow_origins],
        allow_methods=",".join(spec.allow_methods),
        allow_headers=",".join(spec.allow_headers),
        expose_headers=",".join(spec.expose_headers),
        max_age="" if spec.max_age_s is None else str(spec.max_age_s),
        allow_credentials=None if spec.allow_credentials is None else api.BoolValue(value=spec.allow_credentials),
        forward_not_matching_preflights=api.BoolValue(value=spec.forward_unmatched_preflights),
        filter_enabled=api.RuntimeFractionalPercent(default_value=api.FractionalPercent(numerator=100)),
    )
    return RouteFragment(filters={FILTER: policy})


def _origin(match: StringMatch) -> "api.StringMatcher":
    if match.kind is MatchKind.PRESENT:
        return api.StringMatcher(safe_regex=api.RegexMatcher(regex=".*"))
    if match.kind is MatchKind.REGEX:
        pattern = f"(?i:{match.value})" if match.ignore_case else match.value
        return api.StringMatcher(safe_regex=api.RegexMatcher(regex=pattern))
    if match.kind is MatchKind.PREFIX:
        return api.StringMatcher(prefix=match.value, ignore_case=match.ignore_case)
    return api.StringMatcher(exact=match.value, ignore_case=match.ignore_case)
