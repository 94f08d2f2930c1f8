"""A sidecar's JSON access log: lines to typed entries, with the verdict and the response flags in words.

Pure. The fields are those `compile/envoy/observing.py` writes; the words are for people (`tulle logs --proxy`).
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec import Struct

FLAGS: Mapping[str, str] = {
    "DC": "the client went away",
    "DF": "the host name could not be resolved",
    "DI": "delayed by a fault rule",
    "DO": "the proxy was overloaded and dropped it",
    "DPE": "the client broke the HTTP protocol",
    "DR": "the client reset the stream",
    "DT": "the request or connection took longer than allowed",
    "FI": "aborted by a fault rule",
    "IH": "refused for a header that is not allowed",
    "LH": "the local workload failed its health check",
    "LR": "the proxy reset the connection",
    "NC": "the route's cluster does not exist",
    "NFCF": "the cluster was not found in time",
    "NR": "no route, or no filter chain for this connection",
    "OM": "the overload guard ended it",
    "RL": "limited by the local rate limit",
    "RLSE": "the rate limit service failed",
    "SI": "the stream was idle too long",
    "UAEX": "refused by the external authorization service",
    "UC": "the upstream closed the connection",
    "UF": "no connection to the upstream",
    "UH": "no healthy upstream endpoint",
    "UMSDR": "the longest allowed stream duration was reached",
    "UO": "too many requests or connections to the upstream (circuit breaker)",
    "UPE": "the upstream broke the HTTP protocol",
    "UR": "the upstream reset the stream",
    "URX": "retried or connected as often as allowed, without success",
    "UT": "the upstream did not answer in time",
}
"""Envoy documentation, "Access logging", `%RESPONSE_FLAGS%`."""

_POLICY = re.compile(r"ns\[(?P<namespace>[^]]*)\]-policy\[(?P<name>[^]]*)\]-rule\[(?P<rule>\d+)\]")
_DENIED = re.compile(r"rbac_access_denied_matched_policy\[(?P<policy>.*)\]\Z")
_FAILURE = re.compile(r"CERTIFICATE_VERIFY_FAILED|PEER_DID_NOT_RETURN_A_CERTIFICATE")
_SPIFFE = "spiffe://"


class Verdict(StrEnum):
    """What authorization said."""

    ALLOWED = "ALLOWED"
    DENIED = "DENIED"
    NONE = ""
    """Nobody asked."""


class Rule(NamedTuple):
    """A rule of an AuthorizationPolicy."""

    namespace: str
    policy: str
    number: int

    def __str__(self) -> str:
        return f"policy {self.namespace}/{self.policy} rule {self.number}"


class Entry(Struct, frozen=True):
    """One line. Absent values are None in the log and empty here; numbers are 0."""

    reporter: str = ""
    """`source`, `destination`, or `listener` for connections refused before any filter."""
    start_time: str | None = ""
    method: str | None = ""
    path: str | None = ""
    protocol: str | None = ""
    authority: str | None = ""
    response_code: int | None = 0
    response_flags: str | None = ""
    response_code_details: str | None = ""
    connection_termination_details: str | None = ""
    downstream_transport_failure_reason: str | None = ""
    upstream_transport_failure_reason: str | None = ""
    bytes_received: int | None = 0
    bytes_sent: int | None = 0
    duration: int | None = 0
    """Milliseconds."""
    upstream_service_time: str | None = ""
    upstream_host: str | None = ""
    upstream_cluster: str | None = ""
    upstream_local_address: str | None = ""
    downstream_local_address: str | None = ""
    downstream_remote_address: str | None = ""
    requested_server_name: str | None = ""
    route_name: str | None = ""
    downstream_peer: str | None = ""
    upstream_peer: str | None = ""
    user_agent: str | None = ""
    request_id: str | None = ""
    x_forwarded_for: str | None = ""
    policy: str | None = ""
    verdict: str | None = ""

    @property
    def is_http(self) -> bool:
        """Whether the line is a request's, not a connection's."""
        return bool(self.method)


_DECODER = msgspec.json.Decoder(Entry)


def entry(line: str | bytes) -> Entry | None:
    """The entry of a line, or None for a line that is not one (Envoy's own output, a line cut off)."""
    try:
        found = _DECODER.decode(line)
    except msgspec.DecodeError:
        return None
    return found if found.reporter else None


def verdict(found: Entry) -> Verdict:
    """What authorization decided here. A 403 of the other side is that side's word, not this one's."""
    if _denial(found) is not None or found.verdict == "denied":
        return Verdict.DENIED
    return Verdict.ALLOWED if found.verdict == "allowed" else Verdict.NONE


def rule(found: Entry) -> Rule | None:
    """The rule that decided, or None where none matched (or nobody asked)."""
    match = _POLICY.search(_denial(found) or found.policy or "")
    return Rule(match["namespace"], match["name"], int(match["rule"])) if match else None


def reasons(found: Entry) -> tuple[str, ...]:
    """Why the request or connection failed, in words; empty when nothing is odd."""
    said = [FLAGS.get(flag, flag) for flag in (found.response_flags or "").split(",") if flag not in ("", "-")]
    if found.response_code_details == "filter_chain_not_found":
        said = ["plaintext, or another protocol, to a port that takes mesh mTLS only"]
    failure = found.downstream_transport_failure_reason or ""
    if _FAILURE.search(failure):
        said = [f"the client's certificate was refused: {_certificate(failure)}"]
    upstream = found.upstream_transport_failure_reason or ""
    if upstream:
        said.append(f"to the upstream: {_certificate(upstream)}")
    return tuple(said)


def rendered(found: Entry) -> str:
    """One line for people: time, direction, who, what, how it went, and why."""
    arrow = {"source": "→", "destination": "←"}.get(found.reporter, "!")
    parts = [_clock(found.start_time), arrow, *(_request(found) if found.is_http else _connection(found))]
    decided, by = verdict(found), rule(found)
    if decided is Verdict.DENIED:
        parts.append(f"{decided} ({by or 'no ALLOW policy matched'})")
    elif decided is Verdict.ALLOWED:
        parts.append(f"{decided} ({by})" if by else str(decided))
    parts += _others(found)
    why = reasons(found)
    return " ".join([*parts, *(["—", "; ".join(why)] if why else [])])


def _denial(found: Entry) -> str | None:
    """The policy of a denial at this sidecar: `none`, or Istio's name of the rule."""
    if found.upstream_host and found.reporter == "source":
        return None
    for details in (found.response_code_details, found.connection_termination_details):
        match = _DENIED.search(details or "")
        if match:
            return match["policy"]
    return None


def _certificate(failure: str) -> str:
    text = failure.replace("_", " ")
    names = re.search(r"certificate SANs are \[([^]]*)\]", text)
    if names:
        return f"it says {names[1]}, which is not of this mesh"
    if "unable to get local issuer" in text or "self signed" in text or "self-signed" in text:
        return "no root of this mesh signed it"
    if "expired" in text:
        return "it has expired"
    return text if len(text) <= 160 else text[:159] + "…"


def _clock(start: str | None) -> str:
    """`12:01:03.123` of `2026-11-21T12:01:03.123Z`."""
    return (start or "").partition("T")[2].removesuffix("Z") or "-"


def _request(found: Entry) -> list[str]:
    parts = [found.method or "-", f"{found.authority or ''}{found.path or ''}", str(found.response_code or 0)]
    if found.response_flags and found.response_flags != "-":
        parts.append(found.response_flags)
    return [*parts, f"{found.duration or 0}ms"]


def _connection(found: Entry) -> list[str]:
    parts = ["TCP", found.downstream_local_address or "-"]
    if found.response_flags and found.response_flags != "-":
        parts.append(found.response_flags)
    return [*parts, f"{found.duration or 0}ms", f"{found.bytes_received or 0}B in", f"{found.bytes_sent or 0}B out"]


def _others(found: Entry) -> list[str]:
    if found.reporter == "source":
        over = f" mTLS {found.upstream_peer.removeprefix(_SPIFFE)}" if found.upstream_peer else ""
        return [f"to {found.upstream_cluster or '-'} {found.upstream_host or '-'}{over}"]
    if found.downstream_peer:
        return [f"from mTLS {found.downstream_peer.removeprefix(_SPIFFE)}"]
    return [f"from {found.downstream_remote_address or '-'}"]
