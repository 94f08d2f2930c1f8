"""What Istio objects mean: `good/<case>.yaml` in, `good/<case>.intent` out. TULLE_GOLD=1 rewrites the goldens.

Two properties hold for every field of these manifests: versions of a kind mean the same, and no field is dropped silently.
"""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dialect_worlds import intent_of, loaded, printed, world_of

from tulle.dialects.analysis import problems_of
from tulle.dialects.reading import KINDS_READ, read

FOLDER = Path(__file__).parent / "good"
FILES = sorted(FOLDER.glob("*.yaml"))
ABOUT_OTHERS = ("TUL0631",)
"""Problems about objects that are not there: they excuse no field."""
SILENT = {
    "spec.servers[0].port.name": "the server has a name of its own",
    "spec.targetRefs[0].group": "the name of the kind says it",
    "spec.targetRefs[1].group": "the name of the kind says it",
    "spec.provider": "CUSTOM denies whoever would be asked",
    "spec.provider.name": "CUSTOM denies whoever would be asked",
}
"""Fields that change no intent and get no warning when read, with the reason."""


def raw_of(path: Path) -> dict[str, Any]:
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(raw, dict)
    ports = raw["spec"].get("portLevelMtls")
    if ports:
        raw["spec"]["portLevelMtls"] = {str(port): mode for port, mode in ports.items()}
    return raw


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_intent(path: Path) -> None:
    source, db = loaded(path)
    assert [one for one in source.problems if one.is_error] == []
    (key,) = source.objects
    problems = [(one.problem.code, one.place.line, one.problem.text) for one in source.problems]
    problems += [
        (one.code, place.line, one.text) for one in problems_of(db, key) if (place := source.locate(one.origin))
    ]
    text = yaml.safe_dump(
        {
            "intent": printed(intent_of(db, key)),
            "problems": [f"line {line} {code} {text}" for code, line, text in sorted(problems)],
        },
        sort_keys=False,
        width=140,
    )
    golden = path.with_suffix(".intent")
    if os.environ.get("TULLE_GOLD"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_no_orphans() -> None:
    assert {path.stem for path in FOLDER.glob("*.intent")} == {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_served_version_means_the_same(path: Path) -> None:
    raw = raw_of(path)
    group = raw["apiVersion"].partition("/")[0]
    versions = KINDS_READ[group, raw["kind"]].versions
    assert len(versions) >= 2
    found = {version: read({**raw, "apiVersion": f"{group}/{version}"}).object for version in versions}
    assert None not in found.values()
    assert len({printed_intent(one) for one in found.values()}) == 1
    first, *others = found.values()
    assert all(other == first for other in others), "one object, whatever its version"


def printed_intent(one: Any) -> str:
    return repr(intent_of(world_of([one]), one.key))


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in items:
        yield from paths_of(item, (*path, step))


def without(raw: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(raw)
    at: Any = changed["spec"]
    for step in path[:-1]:
        at = at[step]
    del at[path[-1]]
    return changed


def dotted(path: tuple[str | int, ...]) -> str:
    return "spec" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def is_inside(name: str, place: str) -> bool:
    return name == place or name.startswith((f"{place}.", f"{place}["))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_field_is_dropped_silently(path: Path) -> None:
    """Taking a field away changes the intent, or makes the object invalid, or the field had a warning of its own."""
    raw = raw_of(path)
    whole = read(raw)
    assert whole.object is not None
    meant = printed_intent(whole.object)
    said = (*whole.problems, *problems_of(world_of([whole.object]), whole.object.key))
    warned = [one.origin.path for one in said if one.code not in ABOUT_OTHERS]
    silent = []
    for field in paths_of(raw["spec"]):
        name = dotted(field)
        if any(is_inside(name, place) or is_inside(place, name) for place in warned):
            continue
        less = read(without(raw, field)).object
        if less is not None and printed_intent(less) == meant and name not in SILENT:
            silent.append(name)
    assert silent == []
