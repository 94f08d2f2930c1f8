"""Filters of HTTPRoute and GRPCRoute rules as policies, redirects and rewrites of the intent.

What a filter cannot do here is a verdict, and its requests are answered with an error: a filter is never passed over.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from msgspec import Struct

from tulle.dialects.gateway_api import schema_routes as written
from tulle.dialects.gateway_api.backends import resolved
from tulle.dialects.gateway_api.verdicts import Verdict
from tulle.engine import Database
from tulle.model.intent import MatchKind, Redirect, Rewrite, StringMatch, Target
from tulle.model.keys import Labels, ObjectKey
from tulle.model.origin import Origin
from tulle.policies.cors.spec import Cors
from tulle.policies.headers.spec import Headers
from tulle.policies.mirror.spec import Mirror

_WHOLE: Final = 100.0
_FULL_PATH: Final = "^/.*$"
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))


class Filtered(Struct, frozen=True):
    """What the filters of a rule come to."""

    policies: tuple[Any, ...] = ()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    unresolved: Verdict | None = None
    """A reference that leads to nothing; the rule goes on if it was a copy's."""
    refused: Verdict | None = None
    """A filter nobody can apply: the rule's requests get an error."""


def filtered(db: Database, key: ObjectKey, filters: tuple[written.Filter, ...], origin: Origin) -> Filtered:
    """The filters of a rule; `origin` is that of its `filters`."""
    policies: list[Any] = [*_headers(filters, origin)]
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    unresolved: Verdict | None = None
    refused: Verdict | None = None
    for index, one in enumerate(filters):
        place = origin.at(index)
        match one.type:
            case "RequestHeaderModifier" | "ResponseHeaderModifier":
                pass
            case "RequestRedirect" if one.request_redirect is not None:
                redirect = _redirect(one.request_redirect)
                refused = refused or _bad_code(one.request_redirect)
            case "URLRewrite" if one.url_rewrite is not None:
                rewrite = _rewrite(one.url_rewrite)
            case "RequestMirror" if one.request_mirror is not None:
                made, missing = _mirror(db, key, one.request_mirror, place)
                policies += made
                unresolved = unresolved or missing
            case "CORS" if one.cors is not None:
                policies.append(_cors(one.cors, place))
            case "ExtensionRef":
                refused = unresolved = Verdict("InvalidKind", "no extension of routes is known")
            case _:
                refused = Verdict("UnsupportedValue", f"filters of type {one.type} are not applied")
    return Filtered(tuple(policies), redirect, rewrite, unresolved, refused)


def backend_filtered(filters: tuple[written.Filter, ...], origin: Origin) -> Filtered:
    """The filters of one backend: header operations."""
    strange = [one.type for one in filters if one.type not in ("RequestHeaderModifier", "ResponseHeaderModifier")]
    refused = Verdict("UnsupportedValue", f"{strange[0]} is not applied per backend") if strange else None
    return Filtered(tuple(_headers(filters, origin)), refused=refused)


def _headers(filters: Iterable[written.Filter], origin: Origin) -> Iterator[Headers]:
    """One set of operations of all modifiers: each type stands once in a list."""
    empty = written.HeaderFilter()
    request = next((one.request_header_modifier for one in filters if one.request_header_modifier), None)
    response = next((one.response_header_modifier for one in filters if one.response_header_modifier), None)
    if request is None and response is None:
        return
    request, response = request or empty, response or empty
    yield Headers(
        request_set=_pairs(request.set),
        request_add=_pairs(request.add),
        request_remove=request.remove,
        response_set=_pairs(response.set),
        response_add=_pairs(response.add),
        response_remove=response.remove,
        origin=origin,
    )


def _pairs(headers: tuple[written.Header, ...]) -> Labels:
    """The first of a name counts (names know no case)."""
    found: dict[str, tuple[str, str]] = {}
    for one in headers:
        found.setdefault(one.name.lower(), (one.name, one.value))
    return tuple(found.values())


def _redirect(found: written.RedirectFilter) -> Redirect:
    path = found.path
    is_prefix = path is not None and path.type == "ReplacePrefixMatch"
    target = ""
    if path is not None:
        target = (path.replace_prefix_match if is_prefix else path.replace_full_path) or "/"
    return Redirect(
        path=target,
        prefix_path=is_prefix,
        authority=found.hostname or "",
        scheme=found.scheme or "",
        port=found.port,
        code=found.status_code,
    )


def _bad_code(found: written.RedirectFilter) -> Verdict | None:
    if found.status_code in _REDIRECTS:
        return None
    return Verdict("UnsupportedValue", f"{found.status_code} is no redirect")


def _rewrite(found: written.RewriteFilter) -> Rewrite:
    path = found.path
    if path is None:
        return Rewrite("", found.hostname or "")
    if path.type == "ReplacePrefixMatch":
        return Rewrite(path.replace_prefix_match or "/", found.hostname or "")
    whole = (path.replace_full_path or "/").replace("\\", "\\\\")
    return Rewrite("", found.hostname or "", _FULL_PATH, whole)


def _mirror(
    db: Database, key: ObjectKey, found: written.MirrorFilter, origin: Origin
) -> tuple[list[Mirror], Verdict | None]:
    backend = resolved(db, key, found.backend_ref)
    if backend.missing is not None:
        return [], backend.missing
    percent = _WHOLE
    if found.fraction is not None:
        percent = _WHOLE * found.fraction.numerator / found.fraction.denominator
    elif found.percent is not None:
        percent = float(found.percent)
    return [Mirror(Target(backend.host, backend.port, "", 0, (), origin), percent, origin)], None


def _cors(found: written.CorsFilter, origin: Origin) -> Cors:
    return Cors(
        allow_origins=tuple(_allowed(text) for text in found.allow_origins),
        allow_methods=found.allow_methods,
        allow_headers=found.allow_headers,
        expose_headers=found.expose_headers,
        max_age_s=found.max_age,
        allow_credentials=found.allow_credentials,
        origin=origin,
        forward_unmatched_preflights=False,
    )


def _allowed(text: str) -> StringMatch:
    """An origin; `*` stands for any, and for any part of a host."""
    if text == "*":
        return StringMatch(MatchKind.PRESENT)
    if "*" not in text:
        return StringMatch(MatchKind.EXACT, text)
    return StringMatch(MatchKind.REGEX, ".*".join(re.escape(part) for part in text.split("*")))
