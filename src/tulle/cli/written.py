"""Where things are written, for people: origins of the admin API, and the exact line of any field of an object's file.

The API names the file and line of what it was asked for; for fields inside a plan the file is read here.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tulle.cli.manifests import Document, read_text

Explained = Mapping[str, Any]
"""serve/wire.py, Explained."""
_ARRAY = 2


class Spot(NamedTuple):
    """A field of an object and where it is written."""

    kind: str
    namespace: str
    name: str
    path: str
    file: str
    line: int

    @property
    def subject(self) -> str:
        """`VirtualService/shop/reviews`."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)

    @property
    def place(self) -> str:
        """`routing.yaml:14`, seen from here."""
        return place_words(shown_path(self.file), self.line)

    def __str__(self) -> str:
        return " ".join(part for part in (self.place, self.subject, self.path) if part)


class Written:
    """Origins of one proxy's plan. Files are read at most once."""

    def __init__(self, explained: Iterable[Explained]) -> None:
        self._by_name = {(one["type"], one["name"]): one for one in explained}
        self._files: dict[tuple[str, str, str], str] = {}
        self._documents: dict[str, dict[tuple[str, str, str], Document]] = {}
        for one in self._by_name.values():
            for origin in one["origins"]:
                self._files[origin["kind"], origin["namespace"], origin["name"]] = origin["file"]

    def explained(self, type_name: str, name: str) -> Explained | None:
        """The explanation of a resource."""
        return self._by_name.get((type_name, name))

    def names(self, type_name: str) -> list[str]:
        """Names of the resources of a type."""
        return [name for kind, name in self._by_name if kind == type_name]

    def spots(self, type_name: str, name: str) -> list[Spot]:
        """The origins of a resource, nearest first."""
        found = self.explained(type_name, name)
        return [spot_of(origin) for origin in found["origins"]] if found else []

    def note(self, type_name: str, name: str) -> str:
        """Why a resource is there that no object asked for."""
        found = self.explained(type_name, name)
        return str(found["note"]) if found else ""

    def at(self, origin: Any) -> Spot | None:
        """The spot of an origin inside a plan: `[[cluster, group, kind, namespace, name], path]`."""
        if not (isinstance(origin, list) and len(origin) == _ARRAY and isinstance(origin[0], list)):
            return None
        _, _, kind, namespace, name = origin[0]
        return self.of(kind, namespace, name, origin[1])

    def of(self, kind: str, namespace: str, name: str, path: str = "") -> Spot:
        """The spot of a field; without a file where no origin of the plan names the object."""
        file = self._files.get((kind, namespace, name), "")
        line = self._line(file, (kind, namespace, name), path) if file else 0
        return Spot(kind, namespace, name, path, file, line)

    def _line(self, file: str, key: tuple[str, str, str], path: str) -> int:
        if file not in self._documents:
            try:
                held = read_text(file, Path(file).read_text(encoding="utf-8")).documents
            except (OSError, UnicodeDecodeError):
                held = ()
            self._documents[file] = {(one.key.kind, one.key.namespace, one.key.name): one for one in held}
        document = self._documents[file].get(key)
        return document.line_of(path) if document else 0


def spot_of(origin: Mapping[str, Any]) -> Spot:
    """The spot of an origin as the API tells it (serve/wire.py, Place)."""
    return Spot(
        origin["kind"], origin["namespace"], origin["name"], origin["path"], origin.get("file", ""), origin["line"]
    )


def place_words(file: str, line: int) -> str:
    """`routing.yaml:14`; empty for an object of a cluster, whose place is its name and has no lines."""
    return f"{file}:{line}" if file and line else ""


def shown_path(file: str) -> str:
    """A path as seen from the working directory, where that is shorter."""
    if not file.startswith("/"):
        return file
    relative = os.path.relpath(file)
    return relative if len(relative) < len(file) and not relative.startswith("../..") else file
