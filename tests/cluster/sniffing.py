"""What went over the bridge between nodes: a capture by tcpdump, and its TCP payloads by pod.

Reads the file format of libpcap (pcap-savefile(5)): Ethernet, IPv4, TCP.
"""

import re
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kubelab.cluster import Cluster

HTTP = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS) /\S* HTTP/1\.[01]\r\n|^HTTP/1\.[01] \d{3}|^PRI \* HTTP/2\.0"
)
"""A request line or status line as it stands in a segment, or HTTP/2's preface."""
TLS = re.compile(rb"^[\x14-\x17]\x03[\x00-\x04]")
"""A segment that begins with a TLS record."""
START_S = 20.0
_GLOBAL, _RECORD, _ETHERNET = 24, 16, 14


class Segment(NamedTuple):
    """A TCP segment with something in it."""

    source: str
    target: str
    source_port: int
    target_port: int
    payload: bytes

    @property
    def is_http(self) -> bool:
        """HTTP that anybody on the wire can read."""
        return HTTP.search(self.payload) is not None

    @property
    def is_tls(self) -> bool:
        """The beginning of a TLS record."""
        return TLS.match(self.payload) is not None


@contextmanager
def sniffed(cluster: Cluster, file: Path, words: str = "tcp") -> Iterator[None]:
    """Everything TCP on the bridge between nodes goes into the file while this is open."""
    line = cluster.inside("switch", "tcpdump", "-i", "nodes", "-s", "0", "-U", "-Z", "root", "-w", str(file), words)
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + START_S
        while not file.exists() or file.stat().st_size < _GLOBAL:
            assert process.poll() is None, process.stderr.read() if process.stderr else b""
            assert time.monotonic() < end
            time.sleep(0.05)
        yield
        time.sleep(0.5)  # what is on its way through the buffers
    finally:
        process.terminate()
        process.communicate(timeout=START_S)


def segments(file: Path) -> list[Segment]:
    """TCP segments of a capture with payload, in order. Raises ValueError for other kinds of files."""
    text = file.read_bytes()
    magic, link = struct.unpack_from("<I", text)[0], struct.unpack_from("<I", text, 20)[0]
    if magic != 0xA1B2C3D4 or link != 1:
        raise ValueError(f"{file}: no little-endian capture of Ethernet")
    found, at = [], _GLOBAL
    while at + _RECORD <= len(text):
        (held,) = struct.unpack_from("<I", text, at + 8)
        frame = text[at + _RECORD : at + _RECORD + held]
        at += _RECORD + held
        if (one := _segment(frame)) is not None:
            found.append(one)
    return found


def _segment(frame: bytes) -> Segment | None:
    if frame[12:14] != b"\x08\x00" or frame[_ETHERNET + 9] != 6:
        return None
    header = (frame[_ETHERNET] & 15) * 4
    (length,) = struct.unpack_from(">H", frame, _ETHERNET + 2)
    at = _ETHERNET + header
    ports = struct.unpack_from(">HH", frame, at)
    payload = frame[at + (frame[at + 12] >> 4) * 4 : _ETHERNET + length]
    if not payload:
        return None
    addresses = [".".join(map(str, frame[_ETHERNET + where : _ETHERNET + where + 4])) for where in (12, 16)]
    return Segment(addresses[0], addresses[1], ports[0], ports[1], payload)
