"""What a workload accepts, as its plan says: mTLS mode and policies per port, each with its line.

Pure over the admin API's answers. Shared by `authz` and `describe`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tulle.cli.written import Spot, Written

VIRTUAL_INBOUND = "virtualInbound"


class Port(NamedTuple):
    """One port of a workload, or the rest of them."""

    number: int
    """0: every port that no Service names."""
    protocol: str
    mode: str
    mode_from: Spot | None
    """None: nobody said, PERMISSIVE is the default."""
    service: str
    policies: Sequence[tuple[str, Spot, Mapping[str, Any]]]
    """(action, where, the policy as intent/plan JSON)."""
    depth: str = ""
    """`full`, `once` or `l4`, as it was asked for; empty where HTTP is not declared."""
    raised_by: Spot | None = None
    """What needs HTTP although it was asked to be relayed."""

    @property
    def depth_words(self) -> str:
        """What becomes of HTTP that sidecars send."""
        if self.depth == "full":
            return "parsed (depth full)"
        if self.raised_by:
            return f"parsed (depth {self.depth}, raised by {self.raised_by})"
        return f"relayed (depth {self.depth})"


def ports(written: Written) -> list[Port]:
    """Every port of the workload, and the others as the last; empty for gateways."""
    found = written.explained("LDS", VIRTUAL_INBOUND)
    plan = found["plan"] if found else None
    if not plan or "ports" not in plan:
        return []
    made = [
        Port(
            one["port"],
            one["protocol"],
            one["mode"],
            _mode_from(written, one["origins"]),
            (one["service"] or {}).get("host", ""),
            _policies(written, one["policies"]),
            one.get("depth") or "",
            written.at(one.get("raised_by")),
        )
        for one in plan["ports"]
    ]
    others = _policies(written, plan["other_policies"])
    made.append(Port(0, "any", plan["other_mode"], _mode_from(written, plan["origins"]), "", others))
    return made


def who(rule: Mapping[str, Any]) -> str:
    """The callers a rule is about, in words."""
    parts = []
    for source in rule.get("sources", ()):
        said = [f"{_WORDS.get(field, field)} {_values(value)}" for field, value in source.items() if _is_set(value)]
        parts.append(" and ".join(said) or "anyone")
    return " or ".join(parts) or "anyone"


def what(rule: Mapping[str, Any]) -> str:
    """The requests a rule is about, in words."""
    parts = []
    for operation in rule.get("operations", ()):
        said = [f"{_WORDS.get(field, field)} {_values(value)}" for field, value in operation.items() if _is_set(value)]
        parts.append(" and ".join(said) or "anything")
    when = "".join(f" when {one['key']} {_values(one['values'])}" for one in rule.get("conditions", ()))
    return (" or ".join(parts) or "anything") + when


_WORDS = {
    "principals": "",
    "namespaces": "namespace",
    "service_accounts": "service account",
    "ip_blocks": "peer",
    "remote_ip_blocks": "client",
    "request_principals": "token",
    "hosts": "host",
    "ports": "port",
    "methods": "",
    "paths": "path",
}


def _is_set(value: Any) -> bool:
    return isinstance(value, dict) and bool(value.get("any_of") or value.get("none_of"))


def _values(value: Mapping[str, Any]) -> str:
    parts = [", ".join(value.get("any_of") or ())]
    if value.get("none_of"):
        parts.append(f"not {', '.join(value['none_of'])}")
    return " ".join(part for part in parts if part)


def _mode_from(written: Written, origins: Sequence[Any]) -> Spot | None:
    spots = (written.at(one) for one in origins)
    return next((one for one in spots if one and one.kind == "PeerAuthentication"), None)


def _policies(written: Written, policies: Sequence[Any]) -> list[tuple[str, Spot, Mapping[str, Any]]]:
    found = []
    for one in policies:
        spot = written.at(one.get("origin"))
        if spot is not None and "action" in one:
            found.append((str(one["action"]), spot, one))
    return found
