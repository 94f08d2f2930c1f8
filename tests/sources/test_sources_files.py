"""Files to objects: what changes, what goes on when something is broken, and where everything is."""

import asyncio
import gc
import json
import resource
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tulle.model.keys import ObjectKey
from tulle.model.origin import Origin
from tulle.sources import documents
from tulle.sources.files import MAX_FILE_BYTES, FileSource
from tulle.sources.watching import changes
from tulle.sources.yaml_text import Chunk, Parsed


def account(name: str, **labels: str) -> str:
    shown = "".join(f"\n    {key}: {text}" for key, text in labels.items())
    return f"apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {name}" + (
        f"\n  labels:{shown}\n" if labels else "\n"
    )


def key_of(name: str, kind: str = "ServiceAccount", namespace: str = "default") -> ObjectKey:
    return ObjectKey("Kubernetes", "", kind, namespace, name)


def names(source: FileSource) -> list[str]:
    return sorted(key.name for key in source.objects)


def codes(source: FileSource) -> list[str]:
    return [one.problem.code for one in source.problems]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_first_load_and_diffs(folder: Path) -> None:
    (folder / "a.yaml").write_text("---\n".join([account("a"), account("b"), account("c")]))
    source = FileSource([folder])
    assert [one.key.name for one in source.reload().sets] == ["a", "b", "c"]
    assert source.reload().is_empty
    (folder / "a.yaml").write_text("---\n".join(["# moved\n" + account("c"), account("a", app="x"), account("d")]))
    change = source.reload()
    assert [one.key.name for one in change.sets] == ["a", "d"], "c only moved"
    assert [key.name for key in change.deletes] == ["b"]
    (folder / "a.yaml").unlink()
    assert [key.name for key in source.reload().deletes] == ["a", "c", "d"]
    assert codes(source) == ["TUL0017"]


def test_only_changed_documents_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parsed = documents.parsed

    def counting(chunk: Chunk) -> Parsed:
        read.append(chunk.text)
        return parsed(chunk)

    monkeypatch.setattr(documents, "parsed", counting)
    texts = [account(name) for name in ("a", "b", "c")]
    (folder / "a.yaml").write_text("---\n".join(texts))
    (folder / "other.yaml").write_text(account("z"))
    source = FileSource([folder])
    source.reload()
    assert len(read) == 4
    read.clear()
    (folder / "a.yaml").write_text("---\n".join([*texts[:2], account("c", app="x")]))
    source.reload()
    assert len(read) == 1


def test_a_bad_document_harms_nobody(folder: Path) -> None:
    file = folder / "a.yaml"
    file.write_text("---\n".join([account("a"), account("b"), account("c")]))
    source = FileSource([folder])
    source.reload()
    file.write_text("---\n".join([account("a", app="new"), "kind: [\n", account("d")]))
    change = source.reload()
    assert names(source) == ["a", "b", "c", "d"], "b and c may be in the broken document: they go on"
    assert [one.key.name for one in change.sets] == ["a", "d"]
    assert change.deletes == ()
    assert sorted(codes(source)) == ["TUL0004", "TUL0016", "TUL0016"]
    file.write_text("---\n".join([account("a"), account("d")]))
    assert [key.name for key in source.reload().deletes] == ["b", "c"]
    assert codes(source) == []


def test_a_refused_object_goes_on_as_it_was(folder: Path) -> None:
    file = folder / "a.yaml"
    text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: {}\n"
    file.write_text(text.format(80))
    source = FileSource([folder])
    before = source.reload().sets[0]
    file.write_text("# two lines\n# more\n" + text.format(99999))
    change = source.reload()
    assert change.is_empty
    assert source.objects[before.key] == before
    (found,) = change.problems
    assert (found.problem.code, found.place.line) == ("TUL0117", 9)
    assert source.locate(Origin(before.key, "spec.ports[0].port")) == found.place
    file.write_text(text.format(81))
    assert len(source.reload().sets) == 1
    assert codes(source) == []


def test_a_refused_object_that_moved_to_another_file_goes_on(folder: Path) -> None:
    text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: {}\n"
    (folder / "a.yaml").write_text(text.format(80))
    source = FileSource([folder])
    source.reload()
    (folder / "a.yaml").unlink()
    (folder / "b.yaml").write_text(text.format(99999))
    assert source.reload().is_empty
    assert names(source) == ["web"]


def test_unreadable_files_keep_what_they_held(folder: Path) -> None:
    file = folder / "a.yaml"
    file.write_text(account("a"))
    source = FileSource([file])
    source.reload()
    file.write_bytes(b"apiVersion: v1\nname: \xff\xfe\n")
    assert source.reload().is_empty
    assert codes(source) == ["TUL0003", "TUL0016"]
    with file.open("wb") as large:
        large.truncate(MAX_FILE_BYTES + 1)
    assert source.reload().is_empty
    assert codes(source) == ["TUL0002", "TUL0016"]
    file.unlink()
    file.mkdir()
    (file / "inside.yaml").write_text(account("inside"))
    source.reload()
    assert names(source) == ["inside"]


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "a.yaml").write_text(account("a"))
    source = FileSource([folder, Path("/proc/self/mem")])  # opens, and reading fails whoever reads
    source.reload()
    assert names(source) == ["a"]
    assert codes(source) == ["TUL0001"]


def test_a_missing_path(folder: Path) -> None:
    source = FileSource([folder / "nothing.yaml"])
    source.reload()
    assert codes(source) == ["TUL0001"]


def test_two_files_for_one_object(folder: Path) -> None:
    (folder / "a.yaml").write_text(account("x", file="a"))
    (folder / "b.yaml").write_text("\n\n" + account("x", file="b"))
    source = FileSource([folder])
    source.reload()
    assert source.objects[key_of("x")].labels == (("file", "a"),)
    (found,) = source.problems
    assert (found.problem.code, Path(found.place.file).name, found.place.line) == ("TUL0015", "b.yaml", 3)
    assert f"{folder / 'a.yaml'}:1" in found.problem.text
    (folder / "a.yaml").unlink()
    assert source.reload().sets[0].labels == (("file", "b"),)
    assert codes(source) == []
    (folder / "a.yaml").write_text(account("x", file="a"))
    assert source.reload().sets[0].labels == (("file", "a"),)


def test_a_kept_object_yields_to_a_good_one(folder: Path) -> None:
    (folder / "a.yaml").write_text(account("x", file="a"))
    source = FileSource([folder])
    source.reload()
    (folder / "a.yaml").write_text("kind: [")
    (folder / "b.yaml").write_text(account("x", file="b"))
    assert source.reload().sets[0].labels == (("file", "b"),)
    assert codes(source) == ["TUL0004"]


def test_which_files_are_read(folder: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", ".hidden.yaml", "d.yaml.swp", "e.txt"):
        text = json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name[0]}})
        (folder / name).write_text(text if name.endswith("json") else account(name.strip(".")[0]))
    (folder / "sub").mkdir()
    (folder / "sub" / "f.yaml").write_text(account("f"))
    source = FileSource([folder])
    source.reload()
    assert names(source) == ["a", "b", "c"]


def recorded(name: str) -> dict[str, object]:
    """A pod as `kubectl get -o json` prints it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": "0000-1",
            "creationTimestamp": "2026-11-21T10:00:00Z",
            "resourceVersion": "77",
            "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {"containers": [{"name": "app", "image": "app:1"}], "serviceAccountName": "app"},
        "status": {"podIP": "10.0.0.7", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def test_recorded_lists(folder: Path) -> None:
    whole = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [recorded("a"), recorded("b")]}
    typed = {"apiVersion": "v1", "kind": "PodList", "items": [recorded("c")]}
    del typed["items"][0]["apiVersion"], typed["items"][0]["kind"]  # type: ignore[index]
    (folder / "pods.json").write_text(json.dumps(whole, indent="\t"))
    (folder / "more.json").write_text(json.dumps(typed, indent=2))
    (folder / "none.yaml").write_text("apiVersion: v1\nkind: List\nitems:\n")
    source = FileSource([folder])
    source.reload()
    assert codes(source) == []
    assert names(source) == ["a", "b", "c"]
    pod = source.objects[key_of("a", "Pod", "shop")]
    assert (pod.uid, pod.created) == ("0000-1", "2026-11-21T10:00:00Z")
    assert pod.spec.status.pod_ip == "10.0.0.7"
    place = source.locate(Origin(key_of("b", "Pod", "shop"), "spec.serviceAccountName"))
    assert place is not None
    text = (folder / "pods.json").read_text().split("\n")
    assert "serviceAccountName" in text[place.line - 1]
    assert place.line > len(text) / 2


def test_one_bad_item_of_a_list(folder: Path) -> None:
    bad = recorded("bad")
    bad["spec"] = []
    items = {"apiVersion": "v1", "kind": "List", "items": [recorded("a"), bad, "text", recorded("b")]}
    (folder / "pods.json").write_text(json.dumps(items))
    source = FileSource([folder])
    source.reload()
    assert names(source) == ["a", "b"]
    assert sorted(codes(source)) == ["TUL0101", "TUL0114"]


def test_secret_bytes_stay_out_of_objects(folder: Path) -> None:
    file = folder / "secret.yaml"
    text = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  key: {}\n"
    file.write_text(text.format("hush-hush"))
    source = FileSource([folder])
    change = source.reload()
    key = key_of("s", "Secret")
    assert change.private[key].entry("key") == b"hush-hush"
    assert "hush" not in repr(change) + repr(source.objects) + repr(vars(source))
    file.write_text(text.format("changed"))
    change = source.reload()
    assert change.private[key].entry("key") == b"changed"
    file.write_text(text.format("{a: b}"))
    assert source.reload().is_empty
    assert codes(source) == ["TUL0310"]


def test_moving_text_changes_places_only(folder: Path) -> None:
    file = folder / "a.yaml"
    file.write_text(account("a") + "---\n" + account("b"))
    source = FileSource([folder])
    source.reload()
    file.write_text("# a comment\n" + account("a") + "---\n# another\n" + account("b"))
    assert source.reload().is_empty
    place = source.locate(Origin(key_of("b"), "metadata.name"))
    assert place is not None
    assert (Path(place.file).name, place.line, place.column) == ("a.yaml", 11, 3)
    assert source.locate(Origin(key_of("nobody"))) is None


SERVICE = """- apiVersion: v1
  kind: Service
  metadata: {name: a%d, labels: {app: web, tier: front}}
  spec:
    selector: {app: web}
    ports:
    - {name: http, port: 80, targetPort: 8080}
"""


def test_ten_megabytes(folder: Path) -> None:
    """Bounded: seconds, and below 60 bytes of memory per byte of text; an edit of another file costs nothing of it."""
    count = 10_000_000 // len(SERVICE)
    (folder / "big.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n" + "".join(SERVICE % i for i in range(count))
    )
    (folder / "small.yaml").write_text(account("a"))
    size = (folder / "big.yaml").stat().st_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    source = FileSource([folder])
    assert len(source.reload().sets) == count + 1
    took = time.process_time() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"{size / 1e6:.1f} MB, {count} services: {took:.1f} s of CPU, {grown / 1e6:.0f} MB of memory")
    assert size > 9_500_000
    assert took < 60
    assert grown < 60 * size
    assert gc.isenabled()
    (folder / "small.yaml").write_text(account("a", app="x"))
    started = time.process_time()
    assert len(source.reload().sets) == 1
    assert time.process_time() - started < 1


def test_bombs_in_a_file_are_bounded(folder: Path) -> None:
    levels = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    names_ = "abcdefghijklmnopqrstuvwxyz"
    levels += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in pairwise(names_)]
    (folder / "bomb.yaml").write_text("\n".join(levels))
    (folder / "deep.yaml").write_text("a: " + "{a: " * 100_000)
    (folder / "wide.yaml").write_text("? " * 500_000)
    (folder / "cycle.yaml").write_text("a: &a\n  b: &b\n    c: [*a, *b]\n")
    (folder / "good.yaml").write_text(account("good"))
    started = time.process_time()
    source = FileSource([folder])
    source.reload()
    assert time.process_time() - started < 10
    assert names(source) == ["good"]
    assert set(codes(source)) <= {"TUL0004", "TUL0008", "TUL0009", "TUL0010", "TUL0013"}
    assert len(codes(source)) == 4


async def test_watching(folder: Path) -> None:
    (folder / "a.yaml").write_text(account("a"))
    source = FileSource([folder])
    source.reload()
    stream = changes(source)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.3)
    written = time.monotonic()
    (folder / "a.yaml").write_text(account("a", app="x"))
    change = await asyncio.wait_for(first, 5)
    took_ms = (time.monotonic() - written) * 1000
    assert change.sets[0].labels == (("app", "x"),)
    assert took_ms < 1_000
    second = asyncio.ensure_future(anext(stream))
    (folder / "new.yaml").write_text("kind: [")
    change = await asyncio.wait_for(second, 5)
    assert change.is_empty
    assert [one.problem.code for one in change.problems] == ["TUL0004"]
    third = asyncio.ensure_future(anext(stream))
    replaced = folder / ".tmp"
    replaced.write_text(account("b"))
    replaced.rename(folder / "a.yaml")
    change = await asyncio.wait_for(third, 5)
    assert ([one.key.name for one in change.sets], [key.name for key in change.deletes]) == (["b"], ["a"])
    await stream.aclose()


async def test_more_than_the_kernel_remembers(folder: Path) -> None:
    """Then every file is looked at."""
    source = FileSource([folder])
    source.reload()
    stream = changes(source)
    first = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.1)
    for number in range(20_000):  # fs.inotify.max_queued_events is 16384
        (folder / f".{number}").touch()
    (folder / "last.yaml").write_text(account("last"))
    change = await asyncio.wait_for(first, 10)
    assert [one.key.name for one in change.sets] == ["last"]
    await stream.aclose()
