"""The text of one document to decoded objects, with Kubernetes Lists taken apart.

Pure. Between `yaml_text` (which knows no objects) and `files` (which knows which text is in which file). The answer depends on
the text alone, so a document that did not change is never read twice.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tulle.dialects.decode import Decoded
from tulle.model.problems import NOWHERE, Problem, problem
from tulle.sources.yaml_text import Chunk, Flaw, Marks, inside_of, parsed, place_of

Read = Callable[[Any], Decoded]
"""`dialects.reading.read` with the source's cluster and namespace."""

MAX_LISTS = 4
"""Lists inside Lists."""


class Entry(NamedTuple):
    """One object of a document."""

    decoded: Decoded
    marks: Marks
    """Lines count from the chunk's first line."""


class Faulty(NamedTuple):
    """A problem of the text itself, at a line and column from 0, counted from the chunk's first line."""

    problem: Problem
    line: int
    column: int


class ChunkRead(NamedTuple):
    """What a chunk of text holds."""

    entries: tuple[Entry, ...]
    faults: tuple[Faulty, ...]
    is_broken: bool
    """Whether some of it could not be parsed, so that objects may be missing."""
    troubled: tuple[Entry, ...]
    """The entries with problems: nearly always none, of however many."""


def read_chunk(chunk: Chunk, read: Read) -> ChunkRead:
    """The objects of a chunk, each on its own: one that is refused does not touch the others."""
    documents, flaw, notes = parsed(chunk)
    entries = [
        Entry(read(raw), marks)
        for document in documents
        if document.value is not None
        for raw, marks in _objects(document.value, document.marks, MAX_LISTS)
    ]
    faults = tuple(_fault(one) for one in (*notes, *((flaw,) if flaw else ())))
    return ChunkRead(tuple(entries), faults, flaw is not None, tuple(one for one in entries if one.decoded.problems))


def objects_in(chunk: Chunk) -> Iterator[dict[str, Any]]:
    """The objects of a chunk as they are written; items of Lists stand for themselves."""
    for document in parsed(chunk).documents:
        for raw, _ in _objects(document.value, document.marks, MAX_LISTS):
            if isinstance(raw, dict):
                yield raw


def problem_place(found: Problem, marks: Marks) -> tuple[int, int]:
    """Line and column (from 0, in the chunk) of a problem of the object with these marks."""
    return place_of(marks, found.origin.path)


def _fault(flaw: Flaw) -> Faulty:
    return Faulty(problem(flaw.code, NOWHERE, **flaw.arguments), flaw.line, flaw.column)


def _objects(raw: Any, marks: Marks, lists_left: int) -> Iterator[tuple[Any, Marks]]:
    """The object itself, or the items of a List; items of a typed list take its kind."""
    kind = raw.get("kind") if isinstance(raw, dict) else None
    items = raw.get("items") if isinstance(raw, dict) else None
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list | None)) or not lists_left:
        yield raw, marks
        return
    of_items = {} if kind == "List" else {"apiVersion": raw.get("apiVersion"), "kind": kind.removesuffix("List")}
    for index, item in enumerate(items or ()):
        whole = {**of_items, **item} if isinstance(item, dict) else item
        yield from _objects(whole, inside_of(marks, "items", index), lists_left - 1)
