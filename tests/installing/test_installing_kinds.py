"""Definitions of kinds: as structs are read, so are they described."""

from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from tulle.dialects.istio.kinds import KINDS
from tulle.installing.crds import definitions, is_ours
from tulle.installing.openapi import schema_of


class Inner(Struct, rename="camel"):
    some_number: Annotated[int, Meta(ge=1, le=5)] = 1


class Outer(Struct, rename="camel"):
    host: str
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    words: dict[str, str] = {}
    anything: dict[str, Any] = {}
    mode: Literal["ON", "OFF"] = "ON"
    lasting: Annotated[str, Meta(pattern=r"^[0-9]+s\Z")] = "1s"
    share: float | None = None


def test_a_struct_is_a_structural_schema() -> None:
    inner = {"type": "object", "properties": {"someNumber": {"type": "integer", "minimum": 1, "maximum": 5}}}
    assert schema_of(Outer) == {
        "type": "object",
        "required": ["host"],
        "properties": {
            "host": {"type": "string"},
            "inner": inner,
            "many": {"type": "array", "items": inner},
            "words": {"type": "object", "additionalProperties": {"type": "string"}},
            "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "mode": {"type": "string", "enum": ["OFF", "ON"]},
            "lasting": {"type": "string", "pattern": "^[0-9]+s$"},
            "share": {"type": "number"},
        },
    }


def test_what_no_schema_can_say_is_an_error() -> None:
    class Odd(Struct):
        both: Inner | tuple[int, ...]

    with pytest.raises(TypeError, match="structural"):
        schema_of(Odd)


def test_every_kind_is_defined_in_every_version() -> None:
    found = {(one["spec"]["group"], one["spec"]["names"]["kind"]): one for one in definitions()}
    assert found.keys() == {*((kind.group, kind.kind) for kind in KINDS), ("tulle.dev", "LearnedNames")}
    for kind in KINDS:
        spec = found[kind.group, kind.kind]["spec"]
        assert tuple(version["name"] for version in spec["versions"]) == kind.versions
        assert [version["storage"] for version in spec["versions"]].count(True) == 1
        assert all(version["served"] and version["subresources"] == {"status": {}} for version in spec["versions"])


def test_short_names_and_columns_are_istios() -> None:
    found = {one["spec"]["names"]["kind"]: one["spec"] for one in definitions()}
    assert found["VirtualService"]["names"]["shortNames"] == ["vs"]
    columns = [column["name"] for column in found["VirtualService"]["versions"][0]["additionalPrinterColumns"]]
    assert columns == ["Gateways", "Hosts", "Age"]


def test_ours_are_told_from_others() -> None:
    assert all(map(is_ours, definitions()))
    assert not is_ours({"metadata": {"name": "x", "labels": None}})
    assert not is_ours({"metadata": {"name": "x", "labels": {"app": "other"}}})
