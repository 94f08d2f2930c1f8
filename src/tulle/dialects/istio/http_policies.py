"""What a VirtualService's HTTP rule asks for besides a target: the specs of policy kinds.

One function per kind, and one tuple that names them; a kind's meaning is in `policies/<kind>`, not here.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, get_args

from tulle.dialects.istio import schema_virtual_service as written
from tulle.dialects.istio.names import whole_ms, whole_s
from tulle.dialects.istio.targets import Scope, target_of
from tulle.model.intent import MatchKind, StringMatch
from tulle.model.keys import labels_of
from tulle.model.origin import Origin
from tulle.policies.cors.spec import Cors
from tulle.policies.fault.spec import Fault
from tulle.policies.headers.spec import Headers
from tulle.policies.mirror.spec import Mirror
from tulle.policies.retry.spec import Retry
from tulle.policies.timeout.spec import Timeout

Reader = Callable[[written.HttpRoute, Scope, Origin], Iterator[Any]]
_WHOLE: Final = 100.0


def route_policies(route: written.HttpRoute, scope: Scope, origin: Origin) -> tuple[Any, ...]:
    """Policy values of one HTTP rule; `origin` is the rule's."""
    return tuple(policy for reader in _READERS for policy in reader(route, scope, origin))


def header_policies(headers: written.Headers | None, origin: Origin) -> tuple[Any, ...]:
    """Header operations of a rule or of one target; `origin` is that of the `headers` field."""
    if headers is None or headers == written.Headers():
        return ()
    request, response = headers.request, headers.response
    return (
        Headers(
            request_set=labels_of(request.set),
            request_add=labels_of(request.add),
            request_remove=request.remove,
            response_set=labels_of(response.set),
            response_add=labels_of(response.add),
            response_remove=response.remove,
            origin=origin,
        ),
    )


def _headers(route: written.HttpRoute, _: Scope, origin: Origin) -> Iterator[Any]:
    yield from header_policies(route.headers, origin.at("headers"))


def _timeout(route: written.HttpRoute, _: Scope, origin: Origin) -> Iterator[Any]:
    after_ms = whole_ms(route.timeout)
    if after_ms is not None:
        yield Timeout(after_ms, origin.at("timeout"))


def _retry(route: written.HttpRoute, _: Scope, origin: Origin) -> Iterator[Any]:
    retries = route.retries
    if retries is not None:
        yield Retry(
            attempts=retries.attempts,
            per_try_timeout_ms=whole_ms(retries.per_try_timeout),
            retry_on=",".join(word.strip() for word in retries.retry_on.split(",") if word.strip()),
            origin=origin.at("retries"),
            ignore_previous_hosts=retries.retry_ignore_previous_hosts is not False,
            backoff_ms=whole_ms(retries.backoff),
        )


def _mirrors(route: written.HttpRoute, scope: Scope, origin: Origin) -> Iterator[Any]:
    if route.mirror is not None:
        percent = _WHOLE
        if route.mirror_percentage is not None:
            percent = route.mirror_percentage.value
        elif route.mirror_percent is not None:
            percent = float(route.mirror_percent)
        yield _mirror(route.mirror, percent, scope, origin.at("mirror"))
    for index, mirror in enumerate(route.mirrors):
        percent = _WHOLE if mirror.percentage is None else mirror.percentage.value
        yield _mirror(mirror.destination, percent, scope, origin.at("mirrors", index))


def _mirror(destination: written.Destination, percent: float, scope: Scope, origin: Origin) -> Mirror:
    return Mirror(target_of(destination, 0, scope, origin), float(percent), origin)


def _cors(route: written.HttpRoute, _: Scope, origin: Origin) -> Iterator[Any]:
    cors = route.cors_policy
    if cors is None:
        return
    origins = [StringMatch(MatchKind.EXACT, text) for text in cors.allow_origin]
    for match in cors.allow_origins:
        kinds = ((MatchKind.EXACT, match.exact), (MatchKind.PREFIX, match.prefix), (MatchKind.REGEX, match.regex))
        origins += [StringMatch(kind, value) for kind, value in kinds if value is not None]
    yield Cors(
        allow_origins=tuple(origins),
        allow_methods=cors.allow_methods,
        allow_headers=cors.allow_headers,
        expose_headers=cors.expose_headers,
        max_age_s=whole_s(cors.max_age),
        allow_credentials=cors.allow_credentials,
        origin=origin.at("corsPolicy"),
        forward_unmatched_preflights=cors.unmatched_preflights != "IGNORE",
    )


def _fault(route: written.HttpRoute, _: Scope, origin: Origin) -> Iterator[Any]:
    fault = route.fault
    if fault is None:
        return
    delay, abort = fault.delay or written.FaultDelay(), fault.abort or written.FaultAbort()
    delay_percent = delay.percentage.value if delay.percentage else delay.percent
    yield Fault(
        delay_ms=whole_ms(delay.fixed_delay),
        delay_percent=float(_WHOLE if delay_percent is None else delay_percent),
        abort_http=abort.http_status,
        abort_grpc=_GRPC_CODES[abort.grpc_status] if abort.grpc_status else None,
        abort_percent=float(abort.percentage.value if abort.percentage else _WHOLE),
        origin=origin.at("fault"),
    )


_GRPC_CODES: Final = {name: number for number, name in enumerate(get_args(written.GrpcStatus))}
_READERS: Final[tuple[Reader, ...]] = (_headers, _timeout, _retry, _mirrors, _cors, _fault)
