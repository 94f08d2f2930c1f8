"""Who may call what."""

from enum import StrEnum

from msgspec import Struct

from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin


class Action(StrEnum):
    """Istio's order: any matching DENY refuses; then, where ALLOW policies exist, one must match."""

    ALLOW = "ALLOW"
    DENY = "DENY"


class Values(Struct, frozen=True):
    """Any of `any_of` (empty: anything) and none of `none_of`. Istio's patterns: exact, `pre*`, `*suf`, `*` (present)."""

    any_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()


class Source(Struct, frozen=True):
    """All fields must hold. Principals are without `spiffe://`."""

    principals: Values = Values()
    namespaces: Values = Values()
    service_accounts: Values = Values()
    """`namespace/name`."""
    ip_blocks: Values = Values()
    """CIDRs of the peer's address."""
    remote_ip_blocks: Values = Values()
    """CIDRs of the original client's address (X-Forwarded-For)."""
    request_principals: Values = Values()


class Operation(Struct, frozen=True):
    """All fields must hold. Everything but ports needs HTTP."""

    hosts: Values = Values()
    ports: Values = Values()
    methods: Values = Values()
    paths: Values = Values()


class Condition(Struct, frozen=True):
    """One entry of `when`."""

    key: str
    values: Values


class Rule(Struct, frozen=True):
    """Any of the sources, any of the operations, all of the conditions; empty lists match everything."""

    sources: tuple[Source, ...]
    operations: tuple[Operation, ...]
    conditions: tuple[Condition, ...]
    origin: Origin


class Authorization(Struct, frozen=True):
    """One AuthorizationPolicy. No rules: matches nothing (an ALLOW policy without rules denies everything)."""

    key: ObjectKey
    action: Action
    rules: tuple[Rule, ...]
    origin: Origin
