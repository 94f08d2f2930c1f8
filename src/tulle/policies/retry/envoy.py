"""Trying again, on the route: Istio's conversion of HTTPRetry, and its default where a route says nothing.

Source: Envoy `RetryPolicy`, x-envoy-retry-on; Istio's retry defaults (another host each time, at most 5 looks for one).
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from tulle.model.keys import ObjectKey
from tulle.model.objects import MeshSettings
from tulle.model.origin import Origin
from tulle.policies.durations import milliseconds
from tulle.policies.fragments import ClusterOf, RouteFragment
from tulle.policies.retry.spec import Retry
from tulle.xds import api
from tulle.xds.schema import to_any

RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled,503"
"""What is tried again unless a route says otherwise: failures before the application saw the request, and 503."""
_BY_STATUS: Final = "retriable-status-codes"
_HOST_TRIES: Final = 5
_MESH: Final = Origin(ObjectKey("", "", "MeshSettings", "", "mesh"), "default_retry_attempts")


def default(settings: MeshSettings) -> Retry:
    """The mesh's own retry."""
    return Retry(settings.default_retry_attempts, None, RETRY_ON, _MESH, repeats_lost=True)


def on_route(spec: Retry, _: ClusterOf) -> RouteFragment:
    """No attempts means no retry policy at all."""
    if spec.attempts <= 0:
        return RouteFragment()
    words, codes = conditions(spec.retry_on or RETRY_ON)
    backoff = spec.backoff_ms
    policy = api.RetryPolicy(
        num_retries=api.UInt32Value(value=spec.attempts),
        retry_on=",".join(words),
        retriable_status_codes=codes,
        per_try_timeout=milliseconds(spec.per_try_timeout_ms) if spec.per_try_timeout_ms else None,
        retry_back_off=api.RetryPolicy.RetryBackOff(base_interval=milliseconds(backoff)) if backoff else None,
    )
    if spec.ignore_previous_hosts:
        policy.retry_host_predicate.append(
            api.RetryPolicy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts", typed_config=to_any(api.PreviousHostsPredicate())
            )
        )
        policy.host_selection_retry_max_attempts = _HOST_TRIES
    return RouteFragment(route=_lost() if spec.repeats_lost else {}, action={"retry_policy": policy})


@cache
def _lost() -> Mapping[str, Any]:
    # A policy's conditions cannot depend on the method; a condition that the request brings can. The router takes the
    # header off again, and an empty value is not set.
    value = "%CEL(request.method in ['GET', 'HEAD', 'OPTIONS'] ? 'reset' : '')%"
    header = api.HeaderValue(key="x-envoy-retry-on", value=value)
    return {"request_headers_to_add": [api.HeaderValueOption(header=header, append_action="ADD_IF_ABSENT")]}


def conditions(retry_on: str) -> tuple[list[str], list[int]]:
    """Envoy's words, and the status codes that stood among them (Envoy lists those apart)."""
    words: list[str] = []
    codes: list[int] = []
    for word in filter(None, (part.strip() for part in retry_on.split(","))):
        if word.isdecimal():
            codes.append(int(word))
        elif word not in words:
            words.append(word)
    if codes and _BY_STATUS not in words:
        words.append(_BY_STATUS)
    return words, sorted(set(codes))
