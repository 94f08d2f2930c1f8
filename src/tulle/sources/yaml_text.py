"""YAML and JSON text to plain values with the place of every key and item.

Pure: knows no file, no kind and no mesh. `files` reads the bytes; `dialects` gives the values a meaning.

Theory of operation. `---` at the start of a line always begins a document, so the text is cut there first: each document is parsed
on its own, and one that is broken harms no other. Values are built from libyaml's events with an explicit stack, so that
depth, aliases and duplicate keys are checked before anything grows.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from tulle.sources.scalars import Unfit, plain_scalar, tagged_scalar

MAX_DEPTH = 100
"""Nested mappings and sequences; Kubernetes objects stay below 30."""
MAX_ALIASED_NODES = 100_000
"""Nodes that aliases of one document may stand for, all together."""

Marks: TypeAlias = "int | tuple[int, dict[str, Marks]] | tuple[int, list[Marks]]"
"""Place of a value and of what is in it: a packed line and column, with the places of keys or items for containers."""

_COLUMNS = 4096
_START = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_ONLY_DIRECTIVES = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n|%[^\n]*\n)*%[^\n]*\n(?:[ \t]*(?:#[^\n]*)?\n|%[^\n]*\n)*\Z")
_PLACEHOLDER_LINE = re.compile(r"^[ \t-]*\.\.\.[ \t]*$|^\.\.\.[ \t]+[^#\s]", re.MULTILINE)

_ODD_INDENT = re.compile(r" *([\t\u00a0])")


class Chunk(NamedTuple):
    """The text of one document."""

    text: str
    line: int
    """Of its first line in the file, from 0."""


class Document(NamedTuple):
    """A parsed document; lines in marks count from the chunk's first line."""

    value: Any
    marks: Marks


class Flaw(NamedTuple):
    """Why a text is not a document: a code of the catalogue, the place (line and column from 0), the sentence's arguments."""

    code: str
    line: int
    column: int
    arguments: dict[str, str]


class Parsed(NamedTuple):
    """What a chunk held."""

    documents: tuple[Document, ...]
    flaw: Flaw | None
    """Why there are no more of them."""
    notes: tuple[Flaw, ...] = ()
    """Oddities that were mended."""


class _Refused(Exception):  # noqa: N818 - not an error of the program
    def __init__(self, flaw: Flaw) -> None:
        self.flaw = flaw


def chunks(text: str) -> Iterator[Chunk]:
    """The documents of a text, not parsed. Chunks without content are left out. O(text)."""
    text = text.removeprefix("\ufeff")
    starts = [match.start() for match in _START.finditer(text)]
    line, begin = 0, 0
    for end in [*starts, len(text)]:
        piece = text[begin:end]
        if end != len(text) and _ONLY_DIRECTIVES.match(piece):
            continue  # directives belong to the document that follows
        if piece.strip():
            yield Chunk(piece, line)
        line += piece.count("\n")
        begin = end


def parsed(chunk: Chunk) -> Parsed:
    """The document of a chunk, and what stops there being more. Never raises for bad text."""
    loader = _loader(chunk.text)
    if isinstance(loader, Flaw):
        return Parsed((), loader)
    documents: list[Document] = []
    notes: list[Flaw] = []
    try:
        while True:
            document = _next_document(loader, chunk.text, notes)
            if document is None:
                return Parsed(tuple(documents), None, tuple(notes))
            documents.append(document)
    except _Refused as refused:
        return Parsed(tuple(documents), refused.flaw, tuple(notes))
    except yaml.YAMLError as error:
        as_json = _json(chunk.text)
        if as_json is not None:
            return Parsed((as_json,), None)
        return Parsed(tuple(documents), _syntax_flaw(error, chunk.text))
    finally:
        loader.dispose()


def place_of(marks: Marks, path: str) -> tuple[int, int]:
    """Line and column (from 0) of a dotted path, or of its deepest part that is in the text.

    Keys may hold dots: at every mapping the longest key that fits wins.
    """
    while path and not isinstance(marks, int):
        inside = marks[1]
        if isinstance(inside, list):
            index, _, rest = path[1:].partition("]") if path.startswith("[") else ("", "", "")
            if not index.isdigit() or int(index) >= len(inside):
                break
            marks, path = inside[int(index)], rest.removeprefix(".")
            continue
        key = _longest_key(inside, path)
        if key is None:
            break
        marks, path = inside[key], path[len(key) :].removeprefix(".")
    packed = marks if isinstance(marks, int) else marks[0]
    return divmod(packed, _COLUMNS)


def inside_of(marks: Marks, *steps: str | int) -> Marks:
    """The marks of something inside; the nearest container's where it has none."""
    for step in steps:
        if isinstance(marks, int):
            return marks
        inside = marks[1]
        if isinstance(inside, dict):
            found = inside.get(str(step))
        else:
            found = inside[step] if isinstance(step, int) and step < len(inside) else None
        if found is None:
            return marks[0]
        marks = found
    return marks


def _longest_key(keys: dict[str, Marks], path: str) -> str | None:
    if path in keys:
        return path
    fits = (key for key in keys if path.startswith(key) and path[len(key) : len(key) + 1] in (".", "["))
    return max(fits, key=len, default=None)


def _loader(text: str) -> Any:
    try:
        return yaml.CSafeLoader(text)
    except yaml.YAMLError as error:
        return _syntax_flaw(error, text)


class _Open:
    """A container that is being read."""

    __slots__ = ("anchor", "before", "key", "key_mark", "mark", "marks", "merges", "value")

    def __init__(self, value: Any, mark: int, anchor: str | None, before: int) -> None:
        self.value: Any = value
        self.marks: Any = {} if isinstance(value, dict) else []
        self.mark = mark
        self.anchor = anchor
        self.before = before
        self.key: str | None = None
        self.key_mark = 0
        self.merges: list[tuple[Any, Any]] = []


class _Builder:
    """Turns the events of one document into one value."""

    def __init__(self, text: str, notes: list[Flaw]) -> None:
        self.text = text
        self.notes = notes
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, Marks, int] | None] = {}
        """Value, marks and expanded size; None while the node is still open."""
        self.nodes = 0
        self.aliased = 0
        self.root: Document | None = None

    def scalar(self, event: Any) -> None:
        mark = _packed(event.start_mark)
        self.nodes += 1
        top = self.stack[-1] if self.stack else None
        if top is not None and top.key is None and type(top.value) is dict:
            if event.implicit[0] and not event.value.isascii() and event.value != event.value.strip():
                raise _refused("TUL0020", event)
            self._name(top, event.value, mark, is_merge=event.implicit[0] and event.value == "<<")
            return
        value = self._value_of(event)
        if event.anchor:
            self.anchors[event.anchor] = (value, mark, 1)
        self._attach(value, mark)

    def _value_of(self, event: Any) -> Any:
        text: str = event.value
        try:
            if event.tag not in (None, "!"):
                return tagged_scalar(event.tag, text)
            if not event.implicit[0]:
                return text
            if "..." in text and self._is_placeholder(event):
                line = _placeholder(self.text, event.start_mark.line)
                raise _Refused(Flaw("TUL0006", line, 0, {}))
            if not text.isascii() and text != text.strip():
                # YAML trims ordinary spaces only; these come with copies from web pages and nobody sees them.
                self.notes.append(Flaw("TUL0019", event.start_mark.line, event.start_mark.column, {}))
                text = text.strip()
            return plain_scalar(text)
        except Unfit as unfit:
            raise _refused(unfit.code, event, **unfit.arguments) from None

    def _is_placeholder(self, event: Any) -> bool:
        if event.value == "...":
            return True
        lines = self.text.split("\n")[event.start_mark.line : event.end_mark.line + 1]
        return len(lines) > 1 and any(line.strip() == "..." for line in lines)

    def open(self, event: Any) -> None:
        top = self.stack[-1] if self.stack else None
        if top is not None and top.key is None and type(top.value) is dict:
            raise _refused("TUL0013", event)
        if len(self.stack) >= MAX_DEPTH:
            raise _refused("TUL0010", event, limit=str(MAX_DEPTH))
        is_map = type(event) is MappingStartEvent
        if event.tag not in (None, "!", "tag:yaml.org,2002:map" if is_map else "tag:yaml.org,2002:seq"):
            raise _refused("TUL0012", event, tag=event.tag)
        self.nodes += 1
        if event.anchor:
            self.anchors[event.anchor] = None
        self.stack.append(_Open({} if is_map else [], _packed(event.start_mark), event.anchor, self.nodes - 1))

    def close(self) -> None:
        done = self.stack.pop()
        for value, marks in done.merges:
            for key, item in value.items():
                if key not in done.value:
                    done.value[key] = item
                    done.marks[key] = marks.get(key, done.mark)
        whole: Any = (done.mark, done.marks)
        if done.anchor:
            self.anchors[done.anchor] = (done.value, whole, self.nodes - done.before)
        self._attach(done.value, whole)

    def alias(self, event: Any) -> None:
        name: str = event.anchor
        if name not in self.anchors:
            raise _refused("TUL0011", event, anchor=name)
        held = self.anchors[name]
        if held is None:
            raise _refused("TUL0008", event, anchor=name)
        value, marks, size = held
        self.nodes += size
        self.aliased += size
        if self.aliased > MAX_ALIASED_NODES:
            raise _refused("TUL0009", event, limit=str(MAX_ALIASED_NODES))
        top = self.stack[-1]
        if type(top.value) is dict and top.key is None:
            if not isinstance(value, str):
                raise _refused("TUL0013", event)
            self._name(top, value, _packed(event.start_mark), is_merge=False)
        else:
            self._attach(value, marks)

    def _name(self, top: _Open, key: str, mark: int, *, is_merge: bool) -> None:
        if not is_merge and key in top.value:
            line, column = divmod(mark, _COLUMNS)
            first = top.marks[key] if isinstance(top.marks[key], int) else top.marks[key][0]
            # The first place is given relative to this one, so that a document may move in its file.
            above = str(line - first // _COLUMNS)
            raise _Refused(Flaw("TUL0007", line, column, {"field": key, "above": above}))
        top.key, top.key_mark = ("<<", -1) if is_merge else (key, mark)

    def _attach(self, value: Any, marks: Any) -> None:
        if not self.stack:
            self.root = Document(value, marks)
            return
        top = self.stack[-1]
        if type(top.value) is list:
            top.value.append(value)
            top.marks.append(marks)
            return
        key = top.key
        assert key is not None
        if top.key_mark == -1:
            self._merge(top, value, marks)
        else:
            top.value[key] = value
            # A key's place, not its value's: that is where a reader looks.
            top.marks[key] = top.key_mark if isinstance(marks, int) else (top.key_mark, marks[1])
        top.key = None

    def _merge(self, top: _Open, value: Any, marks: Any) -> None:
        pairs = (
            [(value, marks)]
            if isinstance(value, dict)
            else list(zip(value, marks[1], strict=True))
            if isinstance(value, list)
            else []
        )
        if not pairs or not all(isinstance(item, dict) for item, _ in pairs):
            line, column = divmod(marks if isinstance(marks, int) else marks[0], _COLUMNS)
            raise _Refused(Flaw("TUL0014", line, column, {}))
        top.merges += [(item, place[1]) for item, place in pairs]


def _next_document(loader: Any, text: str, notes: list[Flaw]) -> Document | None:
    event = loader.get_event()
    while isinstance(event, StreamStartEvent | DocumentStartEvent):
        event = loader.get_event()
    if event is None or isinstance(event, StreamEndEvent):
        return None
    builder = _Builder(text, notes)
    while True:
        kind = type(event)
        if kind is ScalarEvent:
            builder.scalar(event)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            builder.open(event)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            builder.close()
        elif kind is AliasEvent:
            builder.alias(event)
        elif kind is DocumentEndEvent:
            return builder.root
        event = loader.get_event()


def _packed(mark: Any) -> int:
    line: int = mark.line
    column: int = mark.column
    return line * _COLUMNS + min(column, _COLUMNS - 1)


def _refused(code: str, event: Any, **arguments: str) -> _Refused:
    return _Refused(Flaw(code, event.start_mark.line, event.start_mark.column, arguments))


def _placeholder(text: str, from_line: int) -> int:
    lines = text.split("\n")
    for number in range(from_line, len(lines)):
        if _PLACEHOLDER_LINE.match(lines[number]):
            return number
    return from_line


def _syntax_flaw(error: yaml.YAMLError, text: str) -> Flaw:
    mark = getattr(error, "problem_mark", None)
    position = getattr(error, "position", None)
    if mark is not None:
        line, column = mark.line, mark.column
    else:
        line, column = (text.count("\n", 0, position), 0) if isinstance(position, int) else (0, 0)
    reason = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).split("\n")[0]
    lines = text.split("\n")
    elided = [number for number in range(min(line + 1, len(lines))) if _PLACEHOLDER_LINE.match(lines[number])]
    if elided:
        return Flaw("TUL0006", elided[-1], 0, {})
    near = lines[max(line - 1, 0) : line + 1]
    for offset, content in enumerate(near):
        odd = _ODD_INDENT.match(content)
        if odd:
            return Flaw("TUL0005" if odd[1] == "\t" else "TUL0020", max(line - 1, 0) + offset, 0, {})
    return Flaw("TUL0004", line, column, {"reason": reason})


def _json(text: str) -> Document | None:
    """JSON that YAML 1.1 does not read (escaped surrogates); without places inside."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return Document(json.loads(text), 0)
    except (ValueError, RecursionError):
        return None
