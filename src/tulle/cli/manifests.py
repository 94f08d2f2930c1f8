"""Manifests on the way into a mesh: reading and checking them here, and putting each object into the file it belongs to.

An object that stands in one of the mesh's files already is replaced there, as text: the other documents, comments and the
order stay. A new one goes into the mesh's config directory. Knows no admin API; `apply` and `delete` wait for proxies.
"""

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tulle.cli.output import Finding, refuse
from tulle.dialects.decode import Decoded
from tulle.dialects.reading import read
from tulle.model.keys import ObjectKey
from tulle.model.problems import NOWHERE, problem
from tulle.sources.documents import problem_place, read_chunk
from tulle.sources.files import MAX_FILE_BYTES, SUFFIXES
from tulle.sources.yaml_text import Chunk, Marks, chunks, place_of

STDIN = "-"
CLUSTER = "Kubernetes"


class Document(NamedTuple):
    """One object of a manifest, and the text it stands in."""

    key: ObjectKey
    file: str
    line: int
    """Of the object, from 1."""
    chunk: Chunk
    is_alone: bool
    """Whether its document holds nothing else (a List holds more)."""
    is_private: bool
    marks: Marks
    """Places within the chunk."""

    def line_of(self, path: str) -> int:
        """The line of a field (from 1), or of the nearest thing around it that is written."""
        return self.chunk.line + place_of(self.marks, path)[0] + 1


class Manifests(NamedTuple):
    """What some files hold."""

    documents: tuple[Document, ...]
    findings: tuple[Finding, ...]


class Written(NamedTuple):
    """What became of one object."""

    key: ObjectKey
    what: str
    """`created`, `configured`, `unchanged`, `deleted`."""
    path: Path


def manifests(names: Sequence[str], namespace: str = "default") -> Manifests:
    """The objects of files, folders and `-` (stdin), with every problem of their own text. Nothing is written."""
    documents: list[Document] = []
    findings: list[Finding] = []
    for name in names:
        for file, text in texts(name, findings):
            found = read_text(file, text, namespace)
            documents += found.documents
            findings += found.findings
    first: dict[ObjectKey, Document] = {}
    for document in documents:
        earlier = first.setdefault(document.key, document)
        if earlier is not document:
            place = f"{earlier.file}:{earlier.line}"
            twice = problem("TUL0015", NOWHERE, object=document.key, first=place)
            findings.append(Finding.of(twice, document.file, document.line))
    return Manifests(tuple(documents), tuple(findings))


def read_text(file: str, text: str, namespace: str = "default") -> Manifests:
    """The objects of a text."""
    documents: list[Document] = []
    findings: list[Finding] = []

    def reader(raw: object) -> Decoded:
        return read(raw, CLUSTER, namespace)

    for chunk in chunks(text):
        held = read_chunk(chunk, reader)
        findings += [Finding.of(fault.problem, file, chunk.line + fault.line + 1) for fault in held.faults]
        for decoded, marks in held.entries:
            for found in decoded.problems:
                findings.append(Finding.of(found, file, chunk.line + problem_place(found, marks)[0] + 1))
            if decoded.key is not None:
                line = chunk.line + place_of(marks, "")[0] + 1
                is_alone = len(held.entries) == 1 and not _is_list(chunk.text)
                is_private = decoded.private is not None
                documents.append(Document(decoded.key, file, line, chunk, is_alone, is_private, marks))
    return Manifests(tuple(documents), tuple(findings))


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """Manifest files of files and folders, as the mesh watches them."""
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.iterdir() if _is_manifest(one))
        elif path.exists():
            yield path


class Files:
    """The mesh's files, as they are now and as they will be. `save` writes those that changed."""

    def __init__(self, watched: Sequence[Path], directory: Path, namespace: str = "default") -> None:
        self.directory = directory
        self._namespace = namespace
        self._texts: dict[Path, str] = {}
        self._was: dict[Path, str | None] = {}
        self._private: set[Path] = set()
        for path in files_of([*watched, directory]):
            resolved = path.resolve()
            if resolved.stat().st_size <= MAX_FILE_BYTES:
                self._texts[resolved] = self._was[resolved] = resolved.read_text(encoding="utf-8", errors="replace")

    def put(self, document: Document) -> Written:
        """An object in place of what it was, or new."""
        place = self.find(document.key)
        if place is None:
            return Written(document.key, "created", self._add(document))
        path, old = place
        if document.file != STDIN and Path(document.file).resolve() == path:
            return Written(document.key, "unchanged", path)  # the mesh reads this very file
        fresh = _body(document.chunk.text)
        if _body(old.chunk.text) == fresh:
            return Written(document.key, "unchanged", path)
        self._only_alone(old, path)
        self._only_alone(document, Path(document.file))
        self._splice(path, old.chunk, _in_place(old.chunk.text, fresh))
        return Written(document.key, "configured", path)

    def remove(self, key: ObjectKey) -> Written | None:
        """Take an object out of its file; None where the mesh's files have none of that name."""
        place = self.find(key)
        if place is None:
            return None
        path, old = place
        self._only_alone(old, path)
        self._splice(path, old.chunk, "")
        return Written(key, "deleted", path)

    def find(self, key: ObjectKey) -> tuple[Path, Document] | None:
        """The document of an object, first in path order."""
        for path in sorted(self._texts):
            if key.name in self._texts[path]:
                for document in read_text(str(path), self._texts[path], self._namespace).documents:
                    if document.key == key:
                        return path, document
        return None

    def save(self) -> tuple[Path, ...]:
        """Write what changed, each file at once; files without content go. Returns the paths touched."""
        touched = [path for path, text in self._texts.items() if text != self._was.get(path)]
        for path in touched:
            if self._texts[path].strip():
                _write(path, self._texts[path], is_private=path in self._private)
            elif path.exists():
                path.unlink()
        return tuple(touched)

    def _add(self, document: Document) -> Path:
        self._only_alone(document, Path(document.file))
        key = document.key
        stem = Path(document.file).stem if document.file != STDIN else f"{key.kind}-{key.namespace}-{key.name}".lower()
        path = (self.directory / f"{stem}.yaml").resolve()
        text = self._texts.get(path, "")
        if text and not text.endswith("\n"):
            text += "\n"
        self._texts[path] = f"{text}---\n{_body(document.chunk.text)}" if text.strip() else _body(document.chunk.text)
        self._was.setdefault(path, None)
        if document.is_private:
            self._private.add(path)
        return path

    def _splice(self, path: Path, chunk: Chunk, fresh: str) -> None:
        text = self._texts[path]
        lines = text.removeprefix("\ufeff").splitlines(keepends=True)
        size = len(chunk.text.splitlines())
        assert "".join(lines[chunk.line : chunk.line + size]) == chunk.text
        before, after = "".join(lines[: chunk.line]), "".join(lines[chunk.line + size :])
        if after and fresh and not fresh.endswith("\n"):
            fresh += "\n"
        self._texts[path] = before + fresh + after

    @staticmethod
    def _only_alone(document: Document, path: Path) -> None:
        if not document.is_alone:
            refuse(
                f"{document.key} stands inside a List at {path}:{document.line}, which is not edited by parts",
                advice="Edit the file, or write the object as a document of its own.",
            )


def _is_manifest(path: Path) -> bool:
    return path.suffix in SUFFIXES and not path.name.startswith(".") and path.is_file()


def texts(name: str, findings: list[Finding]) -> Iterator[tuple[str, str]]:
    """File and text of everything a `-f` names; what cannot be read is a finding."""
    if name == STDIN:
        yield STDIN, sys.stdin.read(MAX_FILE_BYTES)
        return
    path = Path(name)
    inside = list(files_of([path]))
    if not inside:
        code = "TUL0017" if path.is_dir() else "TUL0001"
        missing = problem(code, NOWHERE, file=path, reason="no such file or folder")
        findings.append(Finding.of(missing, str(path)))
    for file in inside:
        try:
            size = file.stat().st_size
            if size > MAX_FILE_BYTES:
                large = problem("TUL0002", NOWHERE, file=file, size=size, limit=MAX_FILE_BYTES)
                findings.append(Finding.of(large, str(file)))
                continue
            yield str(file), file.read_text(encoding="utf-8")
        except OSError as error:
            unreadable = problem("TUL0001", NOWHERE, file=file, reason=error.strerror or str(error))
            findings.append(Finding.of(unreadable, str(file)))
        except UnicodeDecodeError as error:
            findings.append(Finding.of(problem("TUL0003", NOWHERE, byte=error.start), str(file)))


def _is_list(text: str) -> bool:
    return any(line.startswith("kind:") and line.rstrip().endswith("List") for line in text.splitlines()) or (
        text.lstrip().startswith("{") and '"items"' in text
    )


def _body(text: str) -> str:
    """A document without its `---` line, ending with a newline."""
    if text.startswith("---"):
        rest = text.partition("\n")
        text = rest[0].removeprefix("---").lstrip() + ("\n" if rest[0].strip() != "---" else "") + rest[2]
    return text.strip("\n") + "\n"


def _in_place(old: str, fresh: str) -> str:
    """The new document where the old one stood: its separator stays, and its heading comment if the new one has none."""
    separator = old.partition("\n")[0] + "\n" if old.startswith("---") else ""
    if separator.strip() not in ("", "---"):
        separator = "---\n"  # something stood behind it
    heading = "" if fresh.startswith("#") else _heading(_body(old))
    end = "\n" if old.endswith("\n\n") else ""
    return separator + heading + fresh + end


def _heading(body: str) -> str:
    lines = body.splitlines(keepends=True)
    kept = 0
    while kept < len(lines) and (lines[kept].startswith("#") or not lines[kept].strip()):
        kept += 1
    return "".join(lines[:kept])


def _write(path: Path, text: str, *, is_private: bool) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600 if is_private else 0o644
    handle, fresh = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".new", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(fresh).chmod(mode)
    Path(fresh).replace(path)
