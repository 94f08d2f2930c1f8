"""Manifest files to objects: what changed, what is wrong, and where everything is. The only reader of files on the way in.

Knows no kinds (that is `dialects.reading`) and no engine: callers put a `Change` into it.

What goes on when something is broken:
- an object that is refused stays as it last was, or absent if it never was good;
- a document that cannot be parsed takes nothing down: objects its file held before, and that stand nowhere else now, go on;
- a file that cannot be read (or is too large, or not UTF-8) keeps everything it held; a file that is gone holds nothing;
- of two objects with one key the first in path order counts, and the other is a problem.
"""

import gc
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from tulle.dialects.decode import Decoded
from tulle.dialects.reading import read
from tulle.model.keys import ObjectKey
from tulle.model.objects import Object
from tulle.model.origin import Origin
from tulle.model.problems import NOWHERE, Problem, problem
from tulle.sources.documents import ChunkRead, problem_place, read_chunk
from tulle.sources.places import Place, Reported
from tulle.sources.yaml_text import Marks, chunks, place_of

MAX_FILE_BYTES = 16 * 1024 * 1024
"""A larger file is refused (TUL0002)."""
SUFFIXES = frozenset((".yaml", ".yml", ".json"))
_ENDINGS = tuple(SUFFIXES)
NO_MANIFESTS = frozenset(("tulle.yaml",))
"""Settings of tulle itself, beside the manifests."""
_BIG_TEXT = 1_000_000

Signature = tuple[int, int, int]


class Change(Struct, frozen=True):
    """What a load or reload changed."""

    sets: tuple[Object, ...]
    """New and changed objects."""
    deletes: tuple[ObjectKey, ...]
    private: Mapping[ObjectKey, Any]
    """Secret bytes of objects in `sets`: for the vault, never for the engine."""
    problems: tuple[Reported, ...]
    """Every problem of every file as it is now, in path and line order."""

    @property
    def is_empty(self) -> bool:
        """Whether no object changed."""
        return not self.sets and not self.deletes


class Reloaded(Struct, frozen=True):
    """One reload of one source: which paths it was asked to look at, and what it found."""

    touched: tuple[Path, ...]
    change: Change


class _Claim(Struct, frozen=True):
    """One file's word on one object."""

    path: Path
    object: Object | None
    """None: refused."""
    private: Any
    marks: Marks
    line: int
    """Of the chunk in the file."""
    is_kept: bool = False
    """From before the file stopped being readable."""


class _Document(Struct, frozen=True):
    digest: bytes
    line: int
    read: ChunkRead


class _File(Struct):
    signature: Signature | None = None
    digest: bytes = b""
    documents: tuple[_Document, ...] = ()
    troubled: tuple[_Document, ...] = ()
    """Those of the documents that have problems: nearly always none, of however many."""
    failure: Problem | None = None
    claims: dict[ObjectKey, _Claim] = field(default_factory=dict)
    kept: tuple[ObjectKey, ...] = ()
    """Keys of the claims from before the file stopped being readable."""
    doubles: tuple[_Claim, ...] = ()
    """Second and later claims of this file on a key of its own."""

    @property
    def is_broken(self) -> bool:
        return self.failure is not None or any(document.read.is_broken for document in self.documents)


class FileSource:
    """Objects of some files and folders (not of folders within them; hidden files are passed over)."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        cluster: str = "Kubernetes",
        namespace: str = "default",
        reader: Callable[[Any, str, str], Decoded] = read,
    ) -> None:
        self.paths = tuple(paths)
        self._reader = reader
        self.cluster = cluster
        self.namespace = namespace
        """For objects that name none."""
        self._files: dict[Path, _File] = {}
        self._paths: dict[str, Path] = {}
        self._claimants: defaultdict[ObjectKey, set[Path]] = defaultdict(set)
        self._effective: dict[ObjectKey, _Claim] = {}
        self._missing: tuple[Path, ...] = ()
        self._contested: set[ObjectKey] = set()
        """Keys that more than one file claims."""
        self._reported: tuple[Reported, ...] | None = None
        """Problems as last collected; None since something was read anew."""

    def reload(self, touched: Iterable[Path] = ()) -> Change:
        """Read what changed since last time: files by size and time (`touched` ones always), documents by content.

        The first call loads everything. Cost: a stat per file, and parsing of changed documents only.
        """
        forced = {path.resolve() for path in touched}
        names = {path.name for path in forced}
        listed = self._listed()
        affected: set[ObjectKey] = set()
        for path in self._files.keys() - listed.keys():
            affected |= self._forget(path)
        for path in listed:
            affected |= self._refresh(path, is_forced=bool(forced) and _is_one_of(path, forced, names))
        return self._settle(affected)

    @property
    def objects(self) -> Mapping[ObjectKey, Object]:
        """Every object that counts now."""
        return {key: claim.object for key, claim in self._effective.items() if claim.object is not None}

    def get(self, key: ObjectKey) -> Object | None:
        """One object that counts now."""
        claim = self._effective.get(key)
        return claim.object if claim else None

    @property
    def problems(self) -> tuple[Reported, ...]:
        """Every problem of every file as it is now, in path and line order."""
        if self._reported is None:
            self._reported = tuple(self._problems())
        return self._reported

    def locate(self, origin: Origin) -> Place | None:
        """The place of a field, or of the nearest thing around it that is written; None for objects of no file."""
        claim = self._effective.get(origin.object)
        if claim is None:
            return None
        return _place(claim, *place_of(claim.marks, origin.path))

    def _listed(self) -> Mapping[Path, None]:
        found: dict[Path, None] = {}
        missing: list[Path] = []
        for path in self.paths:
            inside = [*self._inside(path)] if path.is_dir() else [path] if path.exists() else []
            if not inside:
                missing.append(path)
            found.update(dict.fromkeys(inside))
        if self._missing != tuple(missing):
            self._missing, self._reported = tuple(missing), None
        return found

    def _inside(self, folder: Path) -> Iterator[Path]:
        """The manifests of a folder by name; the same objects as last time, since comparing new ones takes longer than to look."""
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if _is_manifest(entry.name) and entry.is_file())
        for name in names:
            whole = f"{folder}/{name}"
            path = self._paths.get(whole)
            if path is None:
                path = self._paths[whole] = folder / name
            yield path

    def _forget(self, path: Path) -> set[ObjectKey]:
        gone = self._files.pop(path)
        self._paths.pop(str(path), None)
        self._reported = None
        for key in gone.claims:
            self._disclaim(key, path)
        return set(gone.claims)

    def _disclaim(self, key: ObjectKey, path: Path) -> None:
        claimants = self._claimants[key]
        claimants.discard(path)
        if len(claimants) < 2:
            self._contested.discard(key)

    def _refresh(self, path: Path, *, is_forced: bool) -> set[ObjectKey]:
        file = self._files.setdefault(path, _File())
        try:
            signature = _signature(path)
            if signature == file.signature and not is_forced:
                return set()
            self._reported = None
            file.signature = signature
            text = _text(path, signature)
        except OSError as error:
            self._reported = None
            file.failure = problem("TUL0001", NOWHERE, file=path, reason=error.strerror or str(error))
            text = None
        except _RefusedFileError as refused:
            file.failure = refused.problem
            text = None
        if text is None:
            file.digest = b""
            return self._claim_anew(path, file, {key: _kept(claim) for key, claim in file.claims.items()})
        digest = _digest(text)
        if digest == file.digest and file.failure is None:
            return set()
        file.digest, file.failure = digest, None
        file.documents = tuple(self._documents(text, file.documents))
        file.troubled = tuple(one for one in file.documents if one.read.faults or one.read.troubled)
        return self._claim_anew(path, file, self._claims(path, file))

    def _documents(self, text: str, before: tuple[_Document, ...]) -> Iterator[_Document]:
        known = {document.digest: document.read for document in before}
        is_collecting = gc.isenabled() and len(text) > _BIG_TEXT
        if is_collecting:
            gc.disable()  # a million fresh containers, none of them garbage, would be walked again and again
        try:
            for chunk in chunks(text):
                digest = _digest(chunk.text)
                known_read = known.get(digest)
                yield _Document(digest, chunk.line, known_read or read_chunk(chunk, self._read))
        finally:
            if is_collecting:
                gc.enable()

    def _read(self, raw: Any) -> Any:
        return self._reader(raw, self.cluster, self.namespace)

    def _claims(self, path: Path, file: _File) -> dict[ObjectKey, _Claim]:
        claims: dict[ObjectKey, _Claim] = {}
        doubles: list[_Claim] = []
        for document in file.documents:
            for decoded, marks in document.read.entries:
                if decoded.key is None:
                    continue
                claim = _Claim(path, decoded.object, decoded.private, marks, document.line)
                if decoded.key in claims:
                    doubles.append(claim)
                else:
                    claims[decoded.key] = claim
        file.doubles = tuple(doubles)
        if file.is_broken:
            for key, claim in file.claims.items():
                claims.setdefault(key, _kept(claim))
        return claims

    def _claim_anew(self, path: Path, file: _File, claims: dict[ObjectKey, _Claim]) -> set[ObjectKey]:
        affected = set(file.claims) | set(claims)
        for key in file.claims.keys() - claims.keys():
            self._disclaim(key, path)
        for key in claims:
            claimants = self._claimants[key]
            claimants.add(path)
            if len(claimants) > 1:
                self._contested.add(key)
        file.claims = claims
        file.kept = tuple(key for key, claim in claims.items() if claim.is_kept)
        return affected

    def _settle(self, affected: set[ObjectKey]) -> Change:
        sets: dict[ObjectKey, Object] = {}
        private: dict[ObjectKey, Any] = {}
        deletes: list[ObjectKey] = []
        for key in sorted(affected):
            winner = self._winner(key)
            before = self._effective.get(key)
            if winner is None:
                del self._claimants[key]
                if self._effective.pop(key, None) is not None and before and before.object is not None:
                    deletes.append(key)
                continue
            if winner.object is None and before is not None:
                winner = replace(winner, object=before.object, private=before.private)
            self._effective[key] = winner
            if winner.object is not None and (before is None or winner.object != before.object):
                sets[key] = winner.object
                if winner.private is not None:
                    private[key] = winner.private
        return Change(tuple(sets.values()), tuple(deletes), private, self.problems)

    def _winner(self, key: ObjectKey) -> _Claim | None:
        claims = self._claims_on(key)
        return next((claim for claim in claims if not claim.is_kept), claims[0] if claims else None)

    def _claims_on(self, key: ObjectKey) -> list[_Claim]:
        return [self._files[path].claims[key] for path in sorted(self._claimants.get(key, ()))]

    def _problems(self) -> Iterator[Reported]:
        for path in self._missing:
            code = "TUL0017" if path.is_dir() else "TUL0001"
            yield Reported(problem(code, NOWHERE, file=path, reason="no such file or folder"), Place(str(path), 0, 0))
        for path in sorted(self._files):
            of_file = list(self._file_problems(path, self._files[path]))
            yield from sorted(of_file, key=lambda reported: (reported.place.line, reported.problem.code))

    def _file_problems(self, path: Path, file: _File) -> Iterator[Reported]:
        if file.failure is not None:
            yield Reported(file.failure, Place(str(path), 0, 0))
        for document in file.troubled if file.failure is None else ():
            for fault in document.read.faults:
                place = Place(str(path), document.line + fault.line + 1, fault.column + 1)
                yield Reported(fault.problem, place)
            for decoded, marks in document.read.troubled:
                for found in decoded.problems:
                    line, column = problem_place(found, marks)
                    yield Reported(found, Place(str(path), document.line + line + 1, column + 1))
        for claim in file.doubles:
            if claim.object is not None:
                yield self._double(claim, file.claims[claim.object.key])
        doubtful = {*file.kept, *(key for key in self._contested if key in file.claims)}
        for key, claim in file.claims.items() if doubtful else ():
            if key in doubtful:
                yield from self._rivalry(key, claim)

    def _rivalry(self, key: ObjectKey, claim: _Claim) -> Iterator[Reported]:
        winner = self._winner(key)
        if winner is claim:
            if claim.is_kept and claim.object is not None:
                yield Reported(
                    problem("TUL0016", Origin(key), object=key, file=claim.path), Place(str(claim.path), 0, 0)
                )
        elif winner is not None and not claim.is_kept:
            yield self._double(claim, winner, key)

    def _double(self, claim: _Claim, first: _Claim, key: ObjectKey | None = None) -> Reported:
        named = key or (claim.object.key if claim.object else NOWHERE.object)
        where = _place(first, *place_of(first.marks, ""))
        return Reported(
            problem("TUL0015", Origin(named), object=named, first=where), _place(claim, *place_of(claim.marks, ""))
        )


class _RefusedFileError(Exception):
    def __init__(self, refused: Problem) -> None:
        super().__init__(refused.code)
        self.problem = refused


def _is_manifest(name: str) -> bool:
    return name.endswith(_ENDINGS) and not name.startswith(".") and name not in NO_MANIFESTS


def _is_one_of(path: Path, resolved: set[Path], names: set[str]) -> bool:
    """Whether a path leads to one of these; only a link can lead to one of another name."""
    return (path.name in names or path.is_symlink()) and path.resolve() in resolved


def _signature(path: Path) -> Signature:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _text(path: Path, signature: Signature) -> str:
    if signature[1] > MAX_FILE_BYTES:
        raise _RefusedFileError(problem("TUL0002", NOWHERE, file=path, size=signature[1], limit=MAX_FILE_BYTES))
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise _RefusedFileError(problem("TUL0002", NOWHERE, file=path, size=len(content), limit=MAX_FILE_BYTES))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _RefusedFileError(problem("TUL0003", NOWHERE, byte=error.start)) from None


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _kept(claim: _Claim) -> _Claim:
    return claim if claim.is_kept else replace(claim, is_kept=True)


def _place(claim: _Claim, line: int, column: int) -> Place:
    return Place(str(claim.path), claim.line + line + 1, column + 1)
