"""Putting objects into the mesh's files as text: what stays, what moves, what is refused."""

import stat
from pathlib import Path

import click
import pytest

from tulle.cli.manifests import STDIN, Files, manifests, read_text
from tulle.model.keys import ObjectKey

HELD = """\
# The shop's routes.
# Owned by the web team.
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{port: 1}]}  # first
---
# About b.
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {ports: [{port: 2}]}

---
apiVersion: v1
kind: Service
metadata: {name: c}
spec: {ports: [{port: 3}]}
"""


def service(name: str, port: int, comment: str = "") -> str:
    return f"{comment}apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"


def key(name: str) -> ObjectKey:
    return ObjectKey("Kubernetes", "", "Service", "default", name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    held = tmp_path / "config"
    held.mkdir()
    (held / "shop.yaml").write_text(HELD)
    return held


def put(folder: Path, text: str, file: str = STDIN) -> list[tuple[str, str]]:
    files = Files([], folder)
    written = [files.put(document) for document in read_text(file, text).documents]
    files.save()
    return [(one.key.name, one.what) for one in written]


def test_an_object_is_replaced_where_it_stands_and_nothing_else_changes(folder: Path) -> None:
    assert put(folder, service("b", 20)) == [("b", "configured")]
    after = (folder / "shop.yaml").read_text()
    assert after == HELD.replace("{port: 2}", "{port: 20}")


def test_a_new_heading_comment_replaces_the_old_one(folder: Path) -> None:
    put(folder, service("b", 20, "# Now about twenty.\n"))
    after = (folder / "shop.yaml").read_text()
    assert "# Now about twenty." in after
    assert "# About b." not in after
    assert "# Owned by the web team." in after


def test_the_first_and_the_last_document_can_be_replaced(folder: Path) -> None:
    assert put(folder, f"{service('c', 30)}---\n{service('a', 10)}") == [("c", "configured"), ("a", "configured")]
    after = (folder / "shop.yaml").read_text()
    assert after.startswith("# The shop's routes.\n# Owned by the web team.\napiVersion: v1\n")
    found = {one.key.name: one.chunk.text for one in read_text("x", after).documents}
    assert [("10" in found["a"]), ("2}" in found["b"]), ("30" in found["c"])] == [True, True, True]


def test_the_same_document_is_unchanged_and_the_file_is_not_written(folder: Path) -> None:
    before = (folder / "shop.yaml").stat().st_mtime_ns
    assert put(folder, "---\n" + service("c", 3)) == [("c", "unchanged")]
    assert (folder / "shop.yaml").stat().st_mtime_ns == before


def test_new_objects_get_a_file_of_the_source_files_name_or_of_their_own(folder: Path) -> None:
    assert put(folder, f"{service('d', 4)}---\n{service('e', 5)}", "/elsewhere/more.yaml") == [
        ("d", "created"),
        ("e", "created"),
    ]
    assert [one.key.name for one in read_text("x", (folder / "more.yaml").read_text()).documents] == ["d", "e"]
    assert put(folder, service("f", 6)) == [("f", "created")]
    assert (folder / "service-default-f.yaml").read_text() == service("f", 6)


def test_a_document_on_the_line_of_its_separator_survives(folder: Path) -> None:
    (folder / "odd.yaml").write_text(
        "--- {apiVersion: v1, kind: Service, metadata: {name: o}, spec: {ports: [{port: 1}]}}\n---\n" + service("p", 2)
    )
    assert put(folder, service("o", 9)) == [("o", "configured")]
    assert [one.key.name for one in read_text("x", (folder / "odd.yaml").read_text()).documents] == ["o", "p"]


def test_deleting_takes_the_document_and_empty_files(folder: Path) -> None:
    files = Files([], folder)
    assert files.remove(key("nobody")) is None
    for name in ("b", "a"):
        found = files.remove(key(name))
        assert found is not None
    files.save()
    assert [one.key.name for one in read_text("x", (folder / "shop.yaml").read_text()).documents] == ["c"]
    files.remove(key("c"))
    files.save()
    assert not (folder / "shop.yaml").exists()


def test_parts_of_a_list_are_not_edited(folder: Path) -> None:
    items = "\n".join(
        f"- {{apiVersion: v1, kind: Service, metadata: {{name: l{n}}}, spec: {{ports: [{{port: 1}}]}}}}" for n in (1, 2)
    )
    (folder / "list.yaml").write_text(f"apiVersion: v1\nkind: List\nitems:\n{items}\n")
    with pytest.raises(click.ClickException, match=r"l1 stands inside a List at .*list.yaml:4"):
        put(folder, service("l1", 9))


def test_secrets_are_written_for_their_owner_only(folder: Path) -> None:
    put(folder, "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n")
    assert stat.S_IMODE((folder / "secret-default-s.yaml").stat().st_mode) == 0o600


def test_every_problem_has_its_line_and_doubles_are_told(tmp_path: Path) -> None:
    path = tmp_path / "in.yaml"
    path.write_text(f"{service('a', 1)}---\n{service('a', 2)}---\nkind: Service\n")
    found = manifests([str(path), str(tmp_path / "missing.yaml")])
    assert [(one.code, one.line) for one in found.findings] == [("TUL0102", 11), ("TUL0001", 0), ("TUL0015", 6)]


def test_bad_bytes_are_a_finding(tmp_path: Path) -> None:
    (tmp_path / "in.yaml").write_bytes(b"\xff\xfe")
    assert [one.code for one in manifests([str(tmp_path)]).findings] == ["TUL0003"]
