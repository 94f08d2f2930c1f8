"""Mutated manifests: whatever is accepted has an intent and can be analysed; whatever is refused says why and where."""

import copy
from pathlib import Path
from typing import Any

import yaml
from dialect_worlds import intent_of, world_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tulle.dialects.analysis import problems_of
from tulle.dialects.reading import read

GOOD = [
    yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((Path(__file__).parent / "good").glob("*.yaml"))
]
ODD: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    65535,
    2**31,
    2**63,
    1e308,
    "",
    "*",
    "*.example.com",
    ".",
    "a b",
    "0s",
    "9999999h",
    "0.0001ms",
    "(",
    "mesh",
    "a/b",
    "a.b.c",
    "é",
    "x" * 300,
    [],
    {},
    [None],
    [{}],
    {"": {}},
    "10.0.0.0/8",
    "{**}",
    "%PREFIX()%",
    "DISABLE",
    "HTTP",
]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, step) inside."""
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, step) for step, _ in items] + [place for _, item in items for place in places(item)]


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_mutations(data: st.DataObject) -> None:
    raw = copy.deepcopy(data.draw(st.sampled_from(GOOD)))
    for _ in range(data.draw(st.integers(1, 4))):
        spots = places(raw["spec"]) if isinstance(raw.get("spec"), dict) else []
        if not spots:
            break
        container, step = spots[data.draw(st.integers(0, len(spots) - 1))]
        kind = data.draw(st.sampled_from(["replace", "remove", "swap"]))
        if kind == "replace":
            container[step] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
        elif kind == "remove":
            del container[step]
        else:
            other, at = spots[data.draw(st.integers(0, len(spots) - 1))]
            container[step] = copy.deepcopy(other[at])
    found = read(raw)
    for one in found.problems:
        assert one.text
        assert one.advice
    if found.object is None:
        assert any(one.severity == "error" for one in found.problems)
        return
    db = world_of([found.object])
    intent_of(db, found.object.key)
    for one in problems_of(db, found.object.key):
        assert one.text
