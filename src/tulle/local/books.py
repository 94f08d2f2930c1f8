"""What a mesh keeps between runs on this machine: its networks, its addresses, the folder of applied changes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from tulle.local.addresses import Book, slot
from tulle.local.fabric.wire import Network
from tulle.local.places import Places, running

_APPLIED: Final = "applied.yaml"
_FIRST_POD_OCTET: Final = 128
_FIRST_LOOPBACK_OCTET: Final = 64


class Books(msgspec.Struct):
    """The addresses of a mesh, kept in STATE."""

    slot: int
    pods: Book
    services: Book


def choose_network(places: Places) -> int:
    """The slot of a mesh's networks: the one it had, unless a running mesh has it."""
    taken = {mesh.described().get("slot", -1) for mesh in running() if mesh.name != places.name}
    kept = _saved(places)
    if kept is not None and kept.slot not in taken:
        return kept.slot
    return slot(places.name, taken)


def _saved(places: Places) -> Books | None:
    try:
        return msgspec.json.decode((places.state / "addresses.json").read_bytes(), type=Books)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def load_books(places: Places, mesh: Network) -> Books:
    """The addresses given in earlier runs, as far as they are of this network."""
    kept = _saved(places)
    if kept is not None and kept.pods.cidr == mesh.pods:
        return kept
    first, second, *_rest = mesh.pods.split(".")
    number = int(second) - (_FIRST_POD_OCTET if first == "10" else _FIRST_LOOPBACK_OCTET)
    return Books(number, Book(mesh.pods), Book(mesh.services))


def config_directory(places: Places, paths: tuple[Path, ...]) -> Path:
    """Where `apply` writes: the first folder among the manifests, else one of STATE."""
    folder = next((path for path in paths if path.is_dir()), None)
    return (folder or places.state / "config").resolve()


def applied_folder(places: Places) -> Path:
    """The folder of STATE for changes when only files were given; holds a manifest without objects, so that it counts."""
    folder = places.state / "config"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        (folder / _APPLIED).write_text("# What `tulle apply` adds stands in this folder.\n")
    return folder
