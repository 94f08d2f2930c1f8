"""What of an authorization rule cannot be enforced yet, and the rule made safe without it.

Rule: an ALLOW must not allow more than it says, a DENY must not deny less. So a value that cannot be checked is taken as never
matching in an ALLOW and as always matching in a DENY. What cannot be checked: end-user tokens (no RequestAuthentication is
enforced), conditions on other Envoy filters, and path templates (`{*}`, `{**}`).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from msgspec.structs import replace

from tulle.model.origin import Origin
from tulle.policies.authorization.spec import Action, Condition, Operation, Rule, Source, Values

Part = TypeVar("Part", Source, Operation)

_TOKEN_KEYS = ("request.auth.", "experimental.")


def closed(rule: Rule, action: Action) -> Rule | None:
    """The rule without what cannot be checked; None for an ALLOW rule that then never matches."""
    sources = _fits(rule.sources, lambda source: _closed_source(source, action))
    operations = _fits(rule.operations, lambda operation: _closed_operation(operation, action))
    conditions = [_closed_condition(condition, action) for condition in rule.conditions]
    never = (rule.sources and not sources) or (rule.operations and not operations) or None in conditions
    if never:
        return None
    kept = tuple(one for one in conditions if one is not None and one.values != Values())
    return replace(rule, sources=sources, operations=operations, conditions=kept)


def unenforceable(rule: Rule) -> Iterator[tuple[Origin, str]]:
    """The places of a rule that cannot be checked, and what is there."""
    for index, source in enumerate(rule.sources):
        for name, values in (
            ("requestPrincipals", source.request_principals.any_of),
            ("notRequestPrincipals", source.request_principals.none_of),
        ):
            if values:
                yield rule.origin.at("from", index, "source", name), name
    for index, operation in enumerate(rule.operations):
        for name, values in (("paths", operation.paths.any_of), ("notPaths", operation.paths.none_of)):
            for position, value in enumerate(values):
                if is_template(value):
                    yield rule.origin.at("to", index, "operation", name, position), value
    for index, condition in enumerate(rule.conditions):
        if is_token_key(condition.key):
            yield rule.origin.at("when", index, "key"), condition.key


def is_token_key(key: str) -> bool:
    """A condition on something only an unenforced filter knows."""
    return key.startswith(_TOKEN_KEYS)


def is_template(path: str) -> bool:
    """A path with `{*}` or `{**}`."""
    return "{" in path


def _fits(parts: Iterable[Part], close: Callable[[Part], Part | None]) -> tuple[Part, ...]:
    return tuple(kept for part in parts if (kept := close(part)) is not None)


def _closed_source(source: Source, action: Action) -> Source | None:
    values = _closed_values(source.request_principals, action, lambda _: True)
    return None if values is None else replace(source, request_principals=values)


def _closed_operation(operation: Operation, action: Action) -> Operation | None:
    values = _closed_values(operation.paths, action, is_template)
    return None if values is None else replace(operation, paths=values)


def _closed_condition(condition: Condition, action: Action) -> Condition | None:
    if not is_token_key(condition.key):
        return condition
    values = _closed_values(condition.values, action, lambda _: True)
    return None if values is None else replace(condition, values=values)


def _closed_values(values: Values, action: Action, is_unknown: Callable[[str], bool]) -> Values | None:
    """None: never matches."""
    known = Values(
        tuple(value for value in values.any_of if not is_unknown(value)),
        tuple(value for value in values.none_of if not is_unknown(value)),
    )
    if action is Action.DENY:
        return known if known.any_of == values.any_of else replace(known, any_of=())
    if known.none_of != values.none_of or (values.any_of and not known.any_of):
        return None
    return known
