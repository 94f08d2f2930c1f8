"""The envelope of objects and the fitting of bodies: what passes, what is mended, what is listed."""

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from tulle.dialects.fitting import fitted
from tulle.dialects.kinds import LENIENT_TEXT, UNENFORCED, Duration
from tulle.dialects.reading import KINDS_READ, read
from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin

PLACE = Origin(ObjectKey("c", "g", "K", "n", "o"), "spec")


class Inner(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, le=9)] = 1
    text: Annotated[str | None, LENIENT_TEXT] = None
    later: Annotated[int, UNENFORCED] = 0


class Outer(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: str
    wait_for: Duration | None = None
    mode: Literal["ONE", "TWO"] = "ONE"
    share: float = 1.0
    is_on: bool = False
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] = {}
    one: Inner | None = None


def said(raw: Any) -> list[tuple[str, str]]:
    return sorted((one.code, one.origin.path) for one in fitted(raw, Outer, PLACE).problems)


def test_everything_wrong_is_listed_at_its_field() -> None:
    raw = {
        "waitFor": "soon",
        "mode": "one",
        "share": "half",
        "isOn": 1,
        "many": [{"count": 0}, {"count": True}, [], {"cuont": 2}],
        "named": {"a.b": {"text": 7}},
        "one": "text",
        "wait_for": "1s",
    }
    assert said(raw) == [
        ("TUL0113", "spec.many[3].cuont"),
        ("TUL0113", "spec.wait_for"),
        ("TUL0114", "spec.isOn"),
        ("TUL0114", "spec.many[1].count"),
        ("TUL0114", "spec.many[2]"),
        ("TUL0114", "spec.named.a.b.text"),
        ("TUL0114", "spec.one"),
        ("TUL0114", "spec.share"),
        ("TUL0115", "spec"),
        ("TUL0116", "spec.mode"),
        ("TUL0117", "spec.many[0].count"),
        ("TUL0118", "spec.waitFor"),
    ]


def test_hints() -> None:
    texts = [one.text for one in fitted({"name": "a", "wait_for": "1s", "mode": "two"}, Outer, PLACE).problems]
    assert any("Did you mean `waitFor`?" in text for text in texts)
    assert any("Did you mean TWO?" in text for text in texts)


def test_null_is_not_set() -> None:
    value, problems = fitted({"name": "a", "one": None, "many": None, "named": {"x": None}}, Outer, PLACE)
    assert (value, problems) == (Outer("a", named={"x": Inner()}), ())
    assert said({"name": None}) == [("TUL0115", "spec")]


def test_booleans_for_lenient_text() -> None:
    value, problems = fitted({"name": "a", "one": {"text": True}}, Outer, PLACE)
    assert value.one.text == "true"
    assert [(one.code, one.origin.path) for one in problems] == [("TUL0204", "spec.one.text")]


def test_unenforced_fields_are_reported_wherever_they_are() -> None:
    raw = {"name": "a", "one": {"later": 1}, "many": [{}, {"later": 2}], "named": {"x": {"later": 3}}}
    assert said(raw) == [
        ("TUL0201", "spec.many[1].later"),
        ("TUL0201", "spec.named.x.later"),
        ("TUL0201", "spec.one.later"),
    ]
    assert said({"name": "a", "one": {"later": 0}}) == []


@pytest.mark.parametrize("text", ["0", "1s", "1.5s", ".5s", "1h30m", "250ms", "10us", "3µs", "-1s"])
def test_durations(text: str) -> None:
    assert said({"name": "a", "waitFor": text}) == []


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "1d", "1s ", "one", "1s2", "1s\n"])
def test_no_durations(text: str) -> None:
    assert said({"name": "a", "waitFor": text}) == [("TUL0118", "spec.waitFor")]


def test_namespaces_and_scopes() -> None:
    raw: dict[str, Any] = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}
    assert read(raw, "east", "shop").key == ObjectKey("east", "", "ServiceAccount", "shop", "a")
    assert read({**raw, "kind": "Namespace"}, "east", "shop").key == ObjectKey("east", "", "Namespace", "", "a")


@pytest.mark.parametrize("field", ["labels", "annotations"])
def test_nothing_as_a_label(field: str) -> None:
    raw = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", field: {"x": None, "y": "1"}}}
    found = read(raw).object
    assert found is not None
    assert getattr(found, field) == (("x", ""), ("y", "1"))


def test_kinds_nobody_reads_are_kept() -> None:
    raw = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "system:a"}, "rules": []}
    found = read(raw)
    assert found.object is not None
    assert found.object.spec == {"rules": []}
    assert [(one.code, one.severity) for one in found.problems] == [("TUL0203", "info")]
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a.b"}}
    assert read(crd).object is not None


def test_kinds_not_enforced_are_kept_with_a_warning() -> None:
    not_enforced = [kind for kind in KINDS_READ.values() if not kind.is_enforced]
    assert {kind.kind for kind in not_enforced} >= {
        "EnvoyFilter",
        "Sidecar",
        "Telemetry",
        "RequestAuthentication",
        "WasmPlugin",
        "ProxyConfig",
        "WorkloadGroup",
    }
    for kind in not_enforced:
        raw = {
            "apiVersion": f"{kind.group}/{kind.versions[0]}",
            "kind": kind.kind,
            "metadata": {"name": "a"},
            "spec": {"x": 1},
        }
        found = read(raw)
        assert found.object is not None
        assert [one.code for one in found.problems] == ["TUL0202"]


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(anything)
def test_any_value_is_an_answer(raw: Any) -> None:
    found = read(raw)
    assert found.object is not None or found.problems
    value, problems = fitted(raw, Outer, PLACE)
    assert (value is None) == any(one.severity == "error" for one in problems)


@given(st.sampled_from(sorted(KINDS_READ)), anything, anything)
def test_any_spec_is_an_answer(name: tuple[str, str], spec: Any, more: Any) -> None:
    kind = KINDS_READ[name]
    version = f"{kind.group}/{kind.versions[0]}".removeprefix("/")
    body = {**spec, **more} if isinstance(spec, dict) and isinstance(more, dict) else spec
    found = read({"apiVersion": version, "kind": kind.kind, "metadata": {"name": "a"}, "spec": body})
    assert found.object is not None or any(one.severity == "error" for one in found.problems)
    for one in found.problems:
        assert one.text
