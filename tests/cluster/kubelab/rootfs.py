"""Root file systems out of files of this machine, and their archives, which containerd imports. No registry, no Docker.

A layer is a tar in the cache, found by the hash of what it is made from; an image is an archive of layers in the form of
`docker save`. Bytes are the same for the same input: containerd unpacks a layer once.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from .builds import locked
from .layout import cache
from .saying import say

UNUSED_S = 1800.0
EPOCH = "1970-01-01T00:00:00Z"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Layer(NamedTuple):
    """A part of a root file system: `make(root)` fills a folder; `key` is the hash of its input."""

    name: str
    key: str
    make: Callable[[Path], None]


class Image(NamedTuple):
    """What `docker build` would make. `user` is numeric (`1337:1337`) or empty for root."""

    references: tuple[str, ...]
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]
    environment: tuple[str, ...] = ()
    user: str = ""


def archive(image: Image) -> Path:
    """The image's file, made when it is not in the cache."""
    tars = [_tar(layer) for layer in image.layers]
    configuration = _configuration(image, [digest for _, digest in tars])
    digest = hashlib.sha256(configuration + "\0".join(image.references).encode()).hexdigest()
    name = image.references[0].rpartition("/")[2].replace(":", "-")
    target = cache() / "images" / f"{name}-{digest[:16]}.tar"
    with locked(target.parent / f"{name}.lock"):
        if not target.exists():
            _forget(target.parent, name)
            made = target.with_suffix(".part")
            _write(image, configuration, tars, made)
            made.rename(target)
        os.utime(target)
    return target


def digest_of(path: Path) -> str:
    """The image's identity as the archive's name has it."""
    return path.stem.rpartition("-")[2]


def copy(root: Path, source: Path, at: str | None = None) -> None:
    """A file of this machine, at the same place unless told; links are followed."""
    target = root / (at or str(source)).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(source, target)
        shutil.copymode(source, target)


def copy_programs(root: Path, programs: Iterable[Path]) -> None:
    """Programs with the libraries that they load, at the same places."""
    for program in programs:
        copy(root, program)
        for library in libraries(program):
            copy(root, library)


def libraries(program: Path) -> list[Path]:
    """What the dynamic linker loads for a program or library; empty for static ones. Raises FileNotFoundError for a missing one."""
    done = subprocess.run(["ldd", str(program)], check=False, capture_output=True, text=True)
    if "not found" in done.stdout:
        raise FileNotFoundError(f"{program}: {done.stdout}")
    return [Path(text) for text in re.findall(r"(?:^\s*|=> )(/\S+)", done.stdout, re.MULTILINE)]


def write(root: Path, at: str, text: str, *, mode: int = 0o644) -> None:
    """A small file."""
    target = root / at.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(mode)


def accounts(root: Path) -> None:
    """Who there is: root, and the proxy's user of the images that sidecars and the control plane run as."""
    write(root, "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\ntulle:x:1337:1337:tulle:/tmp:/bin/false\n")
    write(root, "/etc/group", "root:x:0:\ntulle:x:1337:\n")
    write(root, "/etc/nsswitch.conf", "hosts: files dns\n")
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


def _tar(layer: Layer) -> tuple[Path, str]:
    """The layer's file and its SHA-256."""
    folder = cache() / "layers"
    target = folder / f"{layer.name}-{layer.key}.tar"
    note = target.with_suffix(".sha256")
    with locked(folder / f"{layer.name}.lock"):
        if not note.exists():
            say(f"making the layer {layer.name}")
            _forget(folder, layer.name)
            with tempfile.TemporaryDirectory(dir=folder) as root:
                layer.make(Path(root))
                _pack(Path(root), target)
            with target.open("rb") as packed:
                note.write_text(hashlib.file_digest(packed, "sha256").hexdigest())
        os.utime(target)
        os.utime(note)
    return target, note.read_text()


def _forget(folder: Path, name: str) -> None:
    """What the same name meant before, long enough ago that nobody reads it any more."""
    old = time.time() - UNUSED_S
    for path in folder.glob(f"{name}-*"):
        if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{16}}\.\w+", path.name) and path.stat().st_mtime < old:
            path.unlink(missing_ok=True)


def _pack(root: Path, target: Path) -> None:
    """Owner root, no times, everybody may read: the same bytes whoever packs."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        if entry.isdir():
            entry.mode |= 0o755
        elif entry.isfile():
            entry.mode = 0o755 if entry.mode & 0o111 else 0o644
        return entry

    with tarfile.open(target, "w") as file:
        for path in sorted(root.iterdir()):
            file.add(path, arcname=path.name, filter=plain)


def _configuration(image: Image, digests: list[str]) -> bytes:
    content = {
        "created": EPOCH,
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {
            "Entrypoint": list(image.entrypoint),
            "Env": [f"PATH={PATH}", *image.environment],
            "User": image.user,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": EPOCH} for _ in digests],
    }
    return json.dumps(content).encode()


def _write(image: Image, configuration: bytes, tars: list[tuple[Path, str]], target: Path) -> None:
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    layers = [f"{digest}/layer.tar" for _, digest in tars]
    manifest = json.dumps([{"Config": name, "RepoTags": list(image.references), "Layers": layers}]).encode()
    with tarfile.open(target, "w") as file:
        for entry, content in ((name, configuration), ("manifest.json", manifest)):
            header = tarfile.TarInfo(entry)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
        for (path, _), entry in zip(tars, layers, strict=True):
            header = tarfile.TarInfo(entry)
            header.size = path.stat().st_size
            with path.open("rb") as content_file:
                file.addfile(header, content_file)
