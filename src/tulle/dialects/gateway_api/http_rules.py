"""Rules of HTTPRoutes and GRPCRoutes as rules of the intent: matches, and where requests go.

A rule whose backends are not there answers 500, or UNAVAILABLE for gRPC; where only some are not, their share does.
"""

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from tulle.dialects.gateway_api import schema_routes as written
from tulle.dialects.gateway_api.backends import resolved, target_of
from tulle.dialects.gateway_api.checks import EXACT, PREFIX, REGEX
from tulle.dialects.gateway_api.filters import Filtered, backend_filtered, filtered
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.dialects.inputs import settings
from tulle.dialects.istio.names import whole_ms
from tulle.engine import Database
from tulle.model.intent import Forward, HttpMatch, HttpRule, MatchKind, Redirect, Respond, StringMatch
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.policies.retry.envoy import RETRY_ON
from tulle.policies.retry.spec import Retry
from tulle.policies.timeout.spec import Timeout

MISSING: Final = 500
"""What requests for a backend that is not there get."""
UNAVAILABLE: Final = 503
"""The same for gRPC: Envoy says UNAVAILABLE for it."""
_LOST: Final = ("connect-failure", "refused-stream", "reset")
"""What `retry` repeats besides its codes: no answer at all, also within the bound of one try (Envoy's `reset`; GEP-1731)."""
_EVERYTHING: Final = HttpMatch(path=StringMatch(MatchKind.SEGMENTS, "/"))


class Rule(Struct, frozen=True):
    """A rule, and what is wrong with it."""

    rule: HttpRule
    unresolved: tuple[Verdict, ...] = ()
    refused: Verdict | None = None


def http_rule(db: Database, key: ObjectKey, rule: written.HttpRule, origin: Origin) -> Rule:
    """One rule of an HTTPRoute; `origin` is the rule's."""
    matches: list[HttpMatch] = []
    refused: Verdict | None = None
    for match in rule.matches:
        found = _http_match(match)
        if isinstance(found, Verdict):
            refused = found
        else:
            matches.append(found)
    if not rule.matches:
        matches = [_EVERYTHING]
    return _rule(db, key, rule, _Read(tuple(matches), tuple(_bounds(db, rule, origin)), refused), origin)


def grpc_rule(db: Database, key: ObjectKey, rule: written.GrpcRule, origin: Origin) -> Rule:
    """One rule of a GRPCRoute."""
    matches = tuple(_grpc_match(match) for match in rule.matches) or (_EVERYTHING,)
    return _rule(db, key, rule, _Read(matches), origin)


class _Read(Struct, frozen=True):
    """What the two kinds of rules say in their own ways."""

    matches: tuple[HttpMatch, ...]
    bounds: tuple[Any, ...] = ()
    refused: Verdict | None = None


def _rule(db: Database, key: ObjectKey, rule: written.HttpRule | written.GrpcRule, read: _Read, origin: Origin) -> Rule:
    found = filtered(db, key, rule.filters, origin.at("filters"))
    action, problems, strange = _action(db, key, rule, found, origin)
    refused = read.refused or found.refused or strange
    made = HttpRule(
        name=rule.name,
        matches=read.matches,
        action=action,
        rewrite=found.rewrite if isinstance(action, Forward) else None,
        policies=(*read.bounds, *found.policies),
        origin=origin,
    )
    unresolved = (*([found.unresolved] if found.unresolved else ()), *problems)
    return Rule(made, unresolved, refused)


def _action(
    db: Database, key: ObjectKey, rule: written.HttpRule | written.GrpcRule, found: Filtered, origin: Origin
) -> tuple[Forward | Redirect | Respond, tuple[Verdict, ...], Verdict | None]:
    missing = UNAVAILABLE if isinstance(rule, written.GrpcRule) else MISSING
    if found.refused is not None:
        return Respond(missing, ""), (), None
    if found.redirect is not None:
        return found.redirect, (), None
    strange: Verdict | None = None
    targets = []
    for index, ref in enumerate(rule.backend_refs):
        place = origin.at("backendRefs", index)
        own = backend_filtered(ref.filters, place.at("filters"))
        strange = strange or own.refused
        targets.append(target_of(db, key, ref, own.policies, place))
    verdicts = (resolved(db, key, ref).missing for ref in rule.backend_refs)
    problems = tuple(one for one in verdicts if one is not None)
    weighing = tuple(one for one in targets if one.weight)
    if strange or not any(one.host for one in weighing):
        return Respond(missing, ""), problems, strange
    return Forward(weighing, missing), problems, None


def _http_match(match: written.HttpMatch) -> HttpMatch | Verdict:
    path = match.path
    kinds = {EXACT: MatchKind.EXACT, PREFIX: MatchKind.SEGMENTS, REGEX: MatchKind.REGEX}
    if path.type not in kinds:
        return Verdict("UnsupportedValue", f"paths are not matched by {path.type}")
    value = path.value
    if path.type == PREFIX:
        value = value.rstrip("/") or "/"
    return HttpMatch(
        path=StringMatch(kinds[path.type], value),
        method=StringMatch(MatchKind.EXACT, match.method) if match.method else None,
        headers=_values(match.headers, is_header=True),
        query=_values(match.query_params),
    )


def _values(matches: tuple[written.ValueMatch, ...], *, is_header: bool = False) -> tuple[tuple[str, StringMatch], ...]:
    """The first of a name counts."""
    found: dict[str, StringMatch] = {}
    for one in matches:
        kind = MatchKind.REGEX if one.type == REGEX else MatchKind.EXACT
        found.setdefault(one.name.lower() if is_header else one.name, StringMatch(kind, one.value))
    return tuple(found.items())


def _grpc_match(match: written.GrpcMatch) -> HttpMatch:
    return HttpMatch(path=_grpc_path(match.method), headers=_values(match.headers, is_header=True))


def _grpc_path(method: written.GrpcMethod | None) -> StringMatch:
    """A call is a POST of `/service/method`."""
    service, name = (method.service or "", method.method or "") if method else ("", "")
    if method is None or not (service or name):
        return StringMatch(MatchKind.SEGMENTS, "/")
    if method.type == REGEX:
        return StringMatch(MatchKind.REGEX, f"/{service or '[^/]+'}/{name or '[^/]+'}")
    if not name:
        return StringMatch(MatchKind.SEGMENTS, f"/{service}")
    if not service:
        return StringMatch(MatchKind.REGEX, f"/[^/]+/{name}")
    return StringMatch(MatchKind.EXACT, f"/{service}/{name}")


def _bounds(db: Database, rule: written.HttpRule, origin: Origin) -> Iterator[Any]:
    """Timeouts and retries. A bound on each try needs a retry policy, if only that of the mesh."""
    timeouts = rule.timeouts or written.Timeouts()
    whole, each = whole_ms(timeouts.request), whole_ms(timeouts.backend_request)
    attempts = settings(db).default_retry_attempts
    if whole is None and each and not attempts and rule.retry is None:
        whole = each  # one try only: its bound is the whole's
    if whole is not None:
        yield Timeout(whole, origin.at("timeouts", "request"))
    retry = rule.retry
    if retry is not None:
        yield Retry(
            attempts=1 if retry.attempts is None else retry.attempts,
            per_try_timeout_ms=each or None,
            retry_on=",".join((*_LOST, *(str(code) for code in retry.codes))),
            origin=origin.at("retry"),
            backoff_ms=whole_ms(retry.backoff),
        )
    elif each and attempts:
        yield Retry(attempts, each, RETRY_ON, origin.at("timeouts", "backendRequest"), repeats_lost=True)
