"""A blueprint as templates of a Helm chart.

Pure. Knows no object of the mesh; `packaging.py` puts the chart together. Source: Helm's template functions (`toJson`,
`toRawJson`, `sha256sum`, `.Capabilities.APIVersions.Has`).
"""

import json
import re
from collections.abc import Iterator, Mapping

from tulle.installing.blueprint import (
    Digest,
    Each,
    Has,
    Item,
    Json,
    Namespace,
    Node,
    Not,
    Optional,
    Spread,
    Text,
    Value,
    When,
)

_STEP = "  "
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*\Z")
"""Keys that YAML takes unquoted."""


def template(nodes: tuple[Node, ...]) -> str:
    """The template file of some objects."""
    lines: list[str] = []
    for node in nodes:
        lines += _object(node)
    return "\n".join(lines) + "\n"


def _object(node: Node) -> Iterator[str]:
    if isinstance(node, Each):
        yield f"{{{{- range $item := {_path(node.values)} }}}}"
        yield from _object(node.then)
        yield "{{- end }}"
    elif isinstance(node, When):
        yield _if(node)
        yield from _object(node.then)
        yield "{{- end }}"
    else:
        yield "---"
        yield from _mapping(node, "")


def _mapping(node: Mapping[str | Spread, Node], indent: str) -> Iterator[str]:
    for key, child in node.items():
        if isinstance(key, Spread):
            yield f"{indent}{{{{- range $key, $value := {_path(key.values)} }}}}"
            yield f"{indent}{{{{ toJson $key }}}}: {{{{ toJson $value }}}}"
            yield f"{indent}{{{{- end }}}}"
        elif isinstance(child, When):
            yield f"{indent}{_if(child)}"
            yield from _entry(key, child.then, indent)
            yield f"{indent}{{{{- end }}}}"
        else:
            yield from _entry(key, child, indent)


def _entry(key: str, child: Node, indent: str) -> Iterator[str]:
    name = key if _PLAIN.match(key) else json.dumps(key)
    if isinstance(child, Mapping) and child:
        yield f"{indent}{name}:"
        yield from _mapping(child, indent + _STEP)
    elif isinstance(child, list | tuple) and child:
        yield f"{indent}{name}:"
        yield from _items(child, indent)
    else:
        yield f"{indent}{name}: {_scalar(child)}"


def _items(nodes: list[Node] | tuple[Node, ...], indent: str) -> Iterator[str]:
    for child in nodes:
        if isinstance(child, Spread):
            yield f"{indent}{{{{- range {_path(child.values)} }}}}"
            yield f"{indent}- {{{{ toJson . }}}}"
            yield f"{indent}{{{{- end }}}}"
        elif isinstance(child, When):
            yield f"{indent}{_if(child)}"
            yield from _item(child.then, indent)
            yield f"{indent}{{{{- end }}}}"
        else:
            yield from _item(child, indent)


def _item(child: Node, indent: str) -> Iterator[str]:
    if not isinstance(child, Mapping) or not child:
        yield f"{indent}- {_scalar(child)}"
        return
    lines = list(_mapping(child, indent + _STEP))
    if lines[0].lstrip().startswith("{{"):
        raise ValueError(f"an item of a list may not begin with a condition: {lines[0]}")
    yield f"{indent}- {lines[0].lstrip()}"
    yield from lines[1:]


def _if(node: When) -> str:
    tests = [_test(test) for test in node.tests]
    return f"{{{{- if {tests[0] if len(tests) == 1 else 'and ' + ' '.join(f'({test})' for test in tests)} }}}}"


def _test(test: Value | Has | Not) -> str:
    if isinstance(test, Not):
        return f"not ({_test(test.test)})"
    if isinstance(test, Has):
        return f"$.Capabilities.APIVersions.Has {json.dumps(test.api)}"
    return _path(test)


def _path(value: Value) -> str:
    return f"$.Values.{value.path}"


def _scalar(node: Node) -> str:
    if isinstance(node, Value):
        return f"{{{{ toJson {_path(node)} }}}}"
    if isinstance(node, Json):
        return f"{{{{ {_json(node)} | toJson }}}}"
    if isinstance(node, Digest):
        return f'"{{{{ {_json(node.json)} | sha256sum }}}}"'
    if isinstance(node, Text | Namespace | Item):
        return f'"{_text(node)}"'
    return json.dumps(node, ensure_ascii=False)


def _json(node: Json) -> str:
    if not node.fixed:
        return f"{_path(node.value)} | toRawJson"
    fixed = " ".join(f"{json.dumps(key)} {_expression(text)}" for key, text in node.fixed)
    return f"mergeOverwrite (deepCopy {_path(node.value)}) (dict {fixed}) | toRawJson"


def _expression(node: Value | Text | Namespace | Item | Optional | str) -> str:
    """As an argument of a template function."""
    if isinstance(node, Text):
        return f"(print {' '.join(_expression(part) for part in node.parts)})"
    if isinstance(node, Optional):
        return f"(ternary {json.dumps(node.otherwise)} {_expression(node.then)} (empty {_path(node.test)}))"
    if isinstance(node, Value):
        return _path(node)
    if isinstance(node, Namespace):
        return "$.Release.Namespace"
    return "$item" if isinstance(node, Item) else json.dumps(node, ensure_ascii=False)


def _text(node: Text | Namespace | Item | Value | str | Optional) -> str:
    if isinstance(node, Text):
        return "".join(_text(part) for part in node.parts)
    if isinstance(node, Optional):
        otherwise = f"{{{{ else }}}}{node.otherwise}" if node.otherwise else ""
        return f"{{{{ if {_path(node.test)} }}}}{_text(node.then)}{otherwise}{{{{ end }}}}"
    if isinstance(node, Value):
        return f"{{{{ {_path(node)} }}}}"
    if isinstance(node, Namespace):
        return "{{ $.Release.Namespace }}"
    if isinstance(node, Item):
        return "{{ $item }}"
    return json.dumps(node, ensure_ascii=False)[1:-1]
