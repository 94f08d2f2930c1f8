"""Plain values to the frozen struct of a schema, with every misfit as a problem at its field.

Pure. Knows no kind. The fast path is one msgspec conversion; only what it refuses is walked here, to name every fault and to
mend what the schema allows to be mended (`null` for "not set", booleans for lenient text).
"""

import difflib
import re
import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, UNSET, inspect

from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem


class Fitted(NamedTuple):
    """The value, None where it was refused, and what is wrong or worth saying."""

    value: Any
    problems: tuple[Problem, ...]


_DROP = object()
_UNIONS = (types.UnionType, Union)


def fitted(raw: Any, schema: Any, origin: Origin) -> Fitted:
    """A value of the schema. Errors refuse the value; warnings (unenforced fields, mended text) do not. O(size)."""
    if schema is dict:
        return Fitted(raw, ())
    try:
        value = msgspec.convert(raw, schema)
    except msgspec.ValidationError:
        return _mended(raw, schema, origin)
    return Fitted(value, tuple(unenforced(value, origin)))


def _mended(raw: Any, schema: Any, origin: Origin) -> Fitted:
    found: list[Problem] = []
    repaired = _walk(raw, inspect.type_info(schema), origin, found)
    if any(item.severity == "error" for item in found):
        return Fitted(None, tuple(found))
    try:
        value = msgspec.convert(repaired, schema)
    except msgspec.ValidationError as error:  # what the walk does not know: still refused, still placed
        reason, _, path = str(error).partition(" - at `$")
        place = Origin(origin.object, (origin.path + path.rstrip("`")).removeprefix("."))
        return Fitted(None, (*found, problem("TUL0120", place, reason=reason)))
    return Fitted(value, (*found, *unenforced(value, origin)))


def unenforced(value: Any, origin: Origin) -> Iterator[Problem]:
    """A warning for every field marked UNENFORCED whose value is not its default."""
    cls: Any = type(value)
    for attribute, name, is_marked, default in _fields(cls):
        item = getattr(value, attribute)
        if item is UNSET or item == default:
            continue
        if is_marked:
            yield problem("TUL0201", origin.at(name), field=name)
        elif isinstance(item, msgspec.Struct):
            yield from unenforced(item, origin.at(name))
        elif isinstance(item, tuple):
            for index, element in enumerate(item):
                if not isinstance(element, msgspec.Struct):
                    break
                yield from unenforced(element, origin.at(name, index))
        elif isinstance(item, dict):
            for key, element in item.items():
                if not isinstance(element, msgspec.Struct):
                    break
                yield from unenforced(element, origin.at(name, key))


@cache
def _fields(cls: Any) -> tuple[tuple[str, str, bool, Any], ...]:
    # Not `inspect.type_info`, which looks into every type below: half of what it costs to read a mesh's first objects.
    return tuple(
        (field.name, field.encode_name, _is_unenforced(field.type), _default(field))
        for field in msgspec.structs.fields(cls)
    )


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if callable(field.default_factory):
        return field.default_factory()
    return None if field.default is NODEFAULT else field.default


def _is_unenforced(hint: Any) -> bool:
    """Whether an annotation, or one option of it, is marked so."""
    if get_origin(hint) is Annotated:
        marks = (mark.extra or {} for mark in hint.__metadata__ if isinstance(mark, msgspec.Meta))
        return any(mark.get("unenforced") for mark in marks) or _is_unenforced(hint.__origin__)
    return get_origin(hint) in _UNIONS and any(map(_is_unenforced, get_args(hint)))


def _marks(kind: inspect.Type) -> dict[str, Any]:
    if isinstance(kind, inspect.Metadata):
        return {**_marks(kind.type), **(kind.extra or {})}
    if isinstance(kind, inspect.UnionType):
        return {key: mark for option in kind.types for key, mark in _marks(option).items()}
    return {}


def _walk(raw: Any, kind: inspect.Type, origin: Origin, found: list[Problem]) -> Any:
    """The value mended for conversion; faults are added to `found`."""
    marks = _marks(kind)
    kind = _plain(kind, raw)
    if isinstance(kind, inspect.StructType):
        return _struct(raw, kind, origin, found)
    if isinstance(kind, inspect.DictType):
        return _mapping(raw, kind, origin, found)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        if not isinstance(raw, list):
            return _wrong(raw, "a list", origin, found)
        return [_walk(item, kind.item_type, origin.at(index), found) for index, item in enumerate(raw)]
    return _scalar(raw, kind, marks, origin, found)


def _plain(kind: inspect.Type, raw: Any) -> inspect.Type:
    """The type without its annotations and without `None`; of a union, the option that fits the value's type."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if not isinstance(kind, inspect.UnionType):
        return kind
    options = [_plain(option, raw) for option in kind.types if not isinstance(option, inspect.NoneType)]
    by_type: dict[type, type[inspect.Type]] = {
        str: inspect.StrType,
        int: inspect.IntType,
        dict: inspect.StructType,
        list: inspect.VarTupleType,
    }
    for option in options:
        if isinstance(option, by_type.get(type(raw), inspect.NoneType)):
            return option
    return options[0]


def _struct(raw: Any, kind: inspect.StructType, origin: Origin, found: list[Problem]) -> Any:
    if not isinstance(raw, dict):
        return _wrong(raw, "an object", origin, found)
    fields = {field.encode_name: field for field in kind.fields}
    mended: dict[str, Any] = {}
    for name, item in raw.items():
        field = fields.get(name)
        if field is None:
            if kind.forbid_unknown_fields:
                found.append(_unknown(name, list(fields), origin))
        elif item is not None:
            mended[name] = _walk(item, field.type, origin.at(name), found)
    for name, field in fields.items():
        if field.required and name not in mended:
            found.append(problem("TUL0115", origin, field=name))
    return mended


def _unknown(name: Any, known: list[str], origin: Origin) -> Problem:
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    if not close:
        close = [field for field in known if field.lower() == str(name).lower().replace("_", "").replace("-", "")][:1]
    return problem("TUL0113", origin.at(str(name)), field=name, hint=f" Did you mean `{close[0]}`?" if close else "")


def _mapping(raw: Any, kind: inspect.DictType, origin: Origin, found: list[Problem]) -> Any:
    if not isinstance(raw, dict):
        return _wrong(raw, "an object", origin, found)
    value_kind = _plain(kind.value_type, None)
    empty: Any = "" if isinstance(value_kind, inspect.StrType) else {}
    if isinstance(value_kind, inspect.AnyType):
        return raw
    return {
        str(key): _walk(empty if item is None else item, kind.value_type, origin.at(str(key)), found)
        for key, item in raw.items()
    }


def _wrong(raw: Any, expected: str, origin: Origin, found: list[Problem]) -> Any:
    found.append(problem("TUL0114", origin, expected=expected, found=_described(raw)))
    return raw


def _described(raw: Any) -> str:
    if raw is None:
        return "nothing"
    if isinstance(raw, bool):
        return f"the boolean {str(raw).lower()}"
    if isinstance(raw, int | float):
        return f"the number {raw}"
    if isinstance(raw, str):
        return f"the text {raw[:60]!r}"
    return "a list" if isinstance(raw, list) else "an object"


def _scalar(raw: Any, kind: inspect.Type, marks: dict[str, Any], origin: Origin, found: list[Problem]) -> Any:
    match kind:
        case inspect.AnyType():
            return raw
        case inspect.StrType():
            return _text(raw, kind, marks, origin, found)
        case inspect.BoolType():
            return raw if isinstance(raw, bool) else _wrong(raw, "true or false", origin, found)
        case inspect.IntType():
            return _number(raw, int, kind, origin, found)
        case inspect.FloatType():
            return _number(raw, (int, float), kind, origin, found)
        case inspect.LiteralType(values=values):
            _choice(raw, tuple(str(value) for value in values), origin, found)
        case inspect.EnumType(cls=cls):
            _choice(raw, tuple(str(member.value) for member in cls), origin, found)
    return raw


def _text(raw: Any, kind: inspect.StrType, marks: dict[str, Any], origin: Origin, found: list[Problem]) -> Any:
    if isinstance(raw, bool) and marks.get("lenient"):
        found.append(problem("TUL0204", origin, value=str(raw).lower()))
        return str(raw).lower()
    if not isinstance(raw, str):
        return _wrong(raw, "a duration like 1s" if marks.get("is") == "duration" else "text", origin, found)
    if kind.pattern is not None and not re.search(kind.pattern, raw):
        if marks.get("is") == "duration":
            found.append(problem("TUL0118", origin, value=raw[:60]))
        else:
            found.append(problem("TUL0119", origin, value=raw[:60], pattern=kind.pattern))
    if len(raw) < (kind.min_length or 0):
        found.append(problem("TUL0122", origin))
    return raw


def _number(raw: Any, types: Any, kind: Any, origin: Origin, found: list[Problem]) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, types):
        return _wrong(raw, "a whole number" if types is int else "a number", origin, found)
    is_low = kind.ge is not None and not raw >= kind.ge
    is_high = kind.le is not None and not raw <= kind.le
    if is_low or is_high:
        bounds = f"{kind.ge:g} to {kind.le:g}" if kind.le is not None else f"at least {kind.ge:g}"
        found.append(problem("TUL0117", origin, value=raw, range=bounds))
    return raw


def _choice(raw: Any, values: tuple[str, ...], origin: Origin, found: list[Problem]) -> None:
    if raw in values:
        return
    close = difflib.get_close_matches(str(raw).upper(), values, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    found.append(problem("TUL0116", origin, value=str(raw)[:60], choices=", ".join(values), hint=hint))
