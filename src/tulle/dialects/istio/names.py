"""Istio's names and units made absolute: hosts, namespaces, gateways, durations.

Pure. Source: Istio reference, "Destination.host" and `ResolveShortnameToFQDN`: only a name without any dot is short, so
`reviews` means `reviews.<namespace>.svc.<domain>` and `reviews.other` is taken as it stands.
"""

import re
from collections.abc import Iterable

MESH = "mesh"
"""The gateway name that means every sidecar."""
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1_000.0, "m": 60_000.0, "h": 3_600_000.0}


def full_host(host: str, namespace: str, domain: str) -> str:
    """A host fully qualified and lower case; wildcards stay."""
    host = host.lower().rstrip(".")
    if not host or host == "*" or "." in host or ":" in host:
        return host
    return f"{host}.{namespace}.svc.{domain}"


def visible_in(export_to: Iterable[str], namespace: str) -> tuple[str, ...]:
    """Namespaces that see the object: `.` is its own, nothing means `*`, `~` nobody (empty)."""
    named = tuple(export_to)
    if not named or "*" in named:
        return ("*",)
    return tuple(sorted({namespace if place == "." else place for place in named if place != "~"}))


def gateway_names(names: Iterable[str], namespace: str) -> tuple[str, ...]:
    """Gateways as `namespace/name`, and `mesh`. Istio also takes `name.namespace.svc.domain`."""
    return tuple(gateway_name(name, namespace) for name in names)


def gateway_name(name: str, namespace: str) -> str:
    """One gateway's full name. `./name` is of the own namespace."""
    if name == MESH:
        return MESH
    place, slash, bare = name.partition("/")
    if slash:
        return f"{namespace if place == '.' else place}/{bare}"
    bare, dot, rest = name.partition(".")
    return f"{rest.partition('.')[0]}/{bare}" if dot else f"{namespace}/{name}"


def milliseconds(duration: str) -> float:
    """A duration that passed the schema (`1h30m`, `250ms`, `0`)."""
    sign = -1.0 if duration.startswith("-") else 1.0
    return sign * sum(float(number) * _MS[unit] for number, unit in _PART.findall(duration))


def whole_ms(duration: str | None) -> int | None:
    """Whole milliseconds, rounded up so that a positive time never becomes 0 (which means "no bound")."""
    if duration is None:
        return None
    exact = milliseconds(duration)
    return int(-(-exact // 1))


def whole_s(duration: str | None) -> int | None:
    """Whole seconds, rounded up."""
    if duration is None:
        return None
    return int(-(-milliseconds(duration) // 1_000))
