"""Trying again, on the route: Istio's conversion of HTTPRetry, and its default where a route says nothing.

Source: Envoy `RetryPolicy`; Istio's retry defaults (another host each time, at most 5 looks for one).
"""

from collections.abc import Mapping
from typing import Final

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
_LOST: Final = "reset"
"""The server hung up without an answer: it may have seen the request."""
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
    return RouteFragment(action={"retry_policy": policy}, safe_action=_also_lost(policy) if spec.repeats_lost else {})


def _also_lost(policy: "api.RetryPolicy") -> Mapping[str, "api.RetryPolicy"]:
    # A policy's conditions cannot depend on the method. A condition that the request brings (x-envoy-retry-on, by CEL) can,
    # and costs fourteen times what a second route does: 9,100 instructions a request, not 650 (docs/decisions/0011).
    more = api.RetryPolicy()
    more.CopyFrom(policy)
    more.retry_on = f"{policy.retry_on},{_LOST}"
    return {"retry_policy": more}


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
