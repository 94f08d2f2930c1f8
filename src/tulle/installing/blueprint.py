"""Objects with blanks: one description that is filled in here, and written out as a Helm chart by `chart.py`.

A node is what JSON can say, or one of the blanks below. Because both renderings read the same tree, `helm template` and
`tulle manifest generate` cannot disagree on what an installation is. Knows no object of the mesh.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct

Node: TypeAlias = Any
"""Text, number, boolean, a dict or list of nodes, or a blank."""


class Value(Struct, frozen=True):
    """The value at a dotted path: `image.hub`."""

    path: str


class Namespace(Struct, frozen=True):
    """The namespace of the control plane."""


class Item(Struct, frozen=True):
    """The element an `Each` is at."""


class Text(Struct, frozen=True):
    """Text put together. Values in it are validated as plain words: nothing is escaped."""

    parts: tuple[str | Value | Namespace | Item | Optional, ...]


class Optional(Struct, frozen=True):
    """Text where a value is given, other text otherwise."""

    test: Value
    then: Text
    otherwise: str = ""


class Json(Struct, frozen=True):
    """A value as JSON text, keys sorted."""

    value: Value
    fixed: tuple[tuple[str, Value | Text | Namespace], ...] = ()
    """Texts that the value, a mapping, holds whatever was chosen. None of them may be empty."""


class Digest(Struct, frozen=True):
    """SHA-256 of JSON text, in hex."""

    json: Json


class Has(Struct, frozen=True):
    """Whether the cluster serves a kind: `group/version/Kind`."""

    api: str


class Not(Struct, frozen=True):
    """The opposite."""

    test: Value | Has


class When(Struct, frozen=True):
    """A node that is there if all tests hold: as an item of a list, the value of a key, or an object."""

    tests: tuple[Value | Has | Not, ...]
    then: Node


class Each(Struct, frozen=True):
    """An object for every element of a list of words."""

    values: Value
    then: Node


class Spread(Struct, frozen=True):
    """All items of a value: as an item of a list, or (with the value None) as a key of a mapping."""

    values: Value


class Facts(NamedTuple):
    """What the blanks are filled in with."""

    values: Mapping[str, Any]
    namespace: str
    apis: frozenset[str] = frozenset()
    """`group/version/Kind` the cluster serves."""
    item: str = ""


_ABSENT = object()


def words(*parts: str | Value | Namespace | Item | Optional | Text) -> Text:
    """Text of parts; texts among them are flattened."""
    flat: list[Any] = []
    for part in parts:
        flat += part.parts if isinstance(part, Text) else (part,)
    return Text(tuple(flat))


def found(values: Mapping[str, Any], path: str) -> Any:
    """The value at a path. Raises KeyError where the tree names what values do not have: a defect."""
    here: Any = values
    for step in path.split("."):
        here = here[step]
    return here


def filled(node: Node, facts: Facts) -> Iterator[Any]:
    """The objects a node stands for: one, none of a `When` that does not hold, many of an `Each`. O(size)."""
    if isinstance(node, Each):
        for item in found(facts.values, node.values.path):
            yield from filled(node.then, facts._replace(item=item))
    elif isinstance(node, When):
        if all(_holds(test, facts) for test in node.tests):
            yield from filled(node.then, facts)
    else:
        yield _made(node, facts)


def _made(node: Node, facts: Facts) -> Any:
    if isinstance(node, When):
        return _made(node.then, facts) if all(_holds(test, facts) for test in node.tests) else _ABSENT
    if isinstance(node, Mapping):
        return _mapping(node, facts)
    if isinstance(node, list | tuple):
        return list(_items(node, facts))
    if isinstance(node, Digest):
        return hashlib.sha256(_json(node.json, facts).encode()).hexdigest()
    return _json(node, facts) if isinstance(node, Json) else _scalar(node, facts)


def _json(node: Json, facts: Facts) -> str:
    value = found(facts.values, node.value.path)
    if node.fixed:
        value = {**value, **{key: _scalar(text, facts) for key, text in node.fixed}}
    return as_json(value)


def as_json(value: Any) -> str:
    """JSON as Go's encoder writes it: keys sorted, no spaces, whole numbers without a point."""
    return json.dumps(_whole(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(item) for item in value]
    return value


def _mapping(node: Mapping[Any, Node], facts: Facts) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, child in node.items():
        if isinstance(key, Spread):
            made |= found(facts.values, key.values.path)
            continue
        item = _made(child, facts)
        if item is not _ABSENT:
            made[key] = item
    return made


def _items(nodes: list[Node] | tuple[Node, ...], facts: Facts) -> Iterator[Any]:
    for child in nodes:
        if isinstance(child, Spread):
            yield from found(facts.values, child.values.path)
            continue
        item = _made(child, facts)
        if item is not _ABSENT:
            yield item


def _holds(test: Value | Has | Not, facts: Facts) -> bool:
    if isinstance(test, Not):
        return not _holds(test.test, facts)
    if isinstance(test, Has):
        return test.api in facts.apis
    return bool(found(facts.values, test.path))


def _scalar(node: Node, facts: Facts) -> Any:
    if isinstance(node, Value):
        return found(facts.values, node.path)
    if isinstance(node, Namespace):
        return facts.namespace
    if isinstance(node, Item):
        return facts.item
    if isinstance(node, Text):
        return "".join(_part(part, facts) for part in node.parts)
    return node


def _part(part: Any, facts: Facts) -> str:
    if isinstance(part, Optional):
        return str(_scalar(part.then, facts)) if _holds(part.test, facts) else part.otherwise
    return str(_scalar(part, facts))
