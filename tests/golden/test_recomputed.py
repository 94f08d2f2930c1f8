"""What an edit makes run and what it makes sent, as goldens: `recomputed/<edit>/` against `recomputed/in.yaml`."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from compile.world import CLUSTER, World
from golden.compile_goldens import REWRITE, directives, pod_of
from tulle.dialects.inputs import objects
from tulle.sources.files import FileSource
from tulle.xds.names import TypeUrl
from tulle.xds.resource import Resource

HERE = Path(__file__).parent / "recomputed"
EDITS = sorted(path.parent for path in HERE.glob("*/edit.yaml"))
Held = dict[str, Mapping[TypeUrl, Mapping[str, Resource]]]


def manifests(path: Path) -> str:
    text = path.read_text()
    pods = "".join(pod_of(words) for name, words in directives(text) if name == "pod")
    has_objects = any(line and not line.startswith("#") for line in text.splitlines())
    return f"{text}\n{pods}" if has_objects else pods


def world() -> World:
    return World.of(manifests(HERE / "in.yaml"))


def views() -> list[str]:
    return [words for name, words in directives((HERE / "in.yaml").read_text()) if name == "view"]


def held(made: World) -> Held:
    return {view: made.resources(*view.split("/")) for view in views()}


def sent(before: Held, after: Held) -> Iterator[str]:
    """What each view's proxies are sent: changed and new resources, and the names of those removed."""
    for view, found in after.items():
        for kind, shelf in found.items():
            old = before[view][kind]
            for name in sorted({*old, *shelf}):
                if old.get(name) != shelf.get(name):
                    yield f"{view}: {'removed ' if name not in shelf else ''}{kind.name} {name}"


def recomputed(edit: Path) -> tuple[str, list[str]]:
    made = world()
    before = held(made)
    assert list(sent(before, held(made))) == []
    with made.db.counting() as counted:
        made.put(manifests(edit / "edit.yaml"))
        after = held(made)
    runs = [f"ran {name.rpartition('.')[2]} x{number}" for name, number in sorted(counted.by_query.items())]
    resources = [f"sent {line}" for line in sent(before, after)]
    return "".join(f"{line}\n" for line in (*runs, *resources)), resources


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_recomputed(edit):
    found, _ = recomputed(edit)
    golden = edit / "recomputed.txt"
    if REWRITE:
        golden.write_text(found)
    assert golden.read_text() == found, "TULLE_GOLD=1 rewrites it"


def test_nothing_lies_about():
    known = {HERE / "in.yaml", *(edit / name for edit in EDITS for name in ("edit.yaml", "recomputed.txt"))}
    assert {path for path in HERE.glob("**/*") if path.is_file()} == known


def test_an_edit_of_routes_sends_one_virtual_host_per_view():
    _, resources = recomputed(HERE / "weight")
    name = "VHDS 9080/reviews.default.svc.cluster.local"
    assert resources == [f"sent {view}: {name}" for view in views() if view != "istio-system/gw"]


@pytest.mark.parametrize("edit", ["unrelated_configmap", "unrelated_status"])
def test_what_concerns_nobody_runs_nothing(edit):
    assert recomputed(HERE / edit) == ("", [])


def test_moving_text_and_comments_runs_nothing():
    text = manifests(HERE / "in.yaml")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.yaml"
        path.write_text(text)
        source = FileSource([path], cluster=CLUSTER)
        assert not source.reload().is_empty
        path.write_text("# moved\n\n" + text.replace("\n---\n", "\n# between\n---\n\n").replace("spec: {", "spec:   {"))
        change = source.reload([path])
        assert change.is_empty
        assert [found for found in source.problems if found.is_error] == []


def test_a_removed_service_takes_its_resources_along():
    made = world()
    before = held(made)
    made.put(manifests(HERE / "new_service" / "edit.yaml"))
    grown = held(made)
    source_key = next(key for key in made.db.graph.rows[objects] if key.name == "cart")
    with made.db.edit() as tx:
        tx.delete(objects, source_key)
    assert list(sent(before, held(made))) == []
    assert any("cart" in line for line in sent(before, grown))
