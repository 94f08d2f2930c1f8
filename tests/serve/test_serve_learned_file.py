"""`learned.json` when it is damaged, unreadable or cannot be written: the mesh starts and serves, and says so once."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from ads_client import Ads, unix
from serve_parts import Mesh, pod, service, uid_of, until

from tulle.serve.learned import LearnedFile
from tulle.serve.learning import KEPT_S, MOST_NAMES, Learning, sound
from tulle.xds.names import TypeUrl

WHO = "spiffe://cluster.local/ns/shop/sa/default app"
GOOD = "vip/10.96.0.1:9080"
ON_DEMAND = {"discovery": "on-demand", "serviceCidrs": ["10.96.0.0/16"]}
NOW = 1.8e9


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x00" * 4096,
        b"\xff\xfe",
        b'{"schema": 99, "workloads": {}}',
        b'{"schema": 1, "workloads": {"a": {"b": "c"}}}',
        b'{"schema": 1, "workloads": ' + b"[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_an_empty_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "learned.json"
    path.write_bytes(content)
    assert LearnedFile(path).read() == {}


def test_what_no_proxy_asks_for_is_not_given_to_one() -> None:
    names = {GOOD: NOW - 10, "vip/010.96.0.1:80": NOW, "": NOW, "web.shop": NOW, "vip/10.96.0.1:99999": NOW}
    assert sound({WHO: names, "claimed shop/liar": {GOOD: NOW}, "empty": {}}, NOW) == {WHO: {GOOD: NOW - 10}}


def test_times_that_cannot_be_are_now() -> None:
    """A name from the future would never be old."""
    kept = sound({WHO: {GOOD: NOW + 1e9}}, NOW)
    assert kept == {WHO: {GOOD: NOW}}
    made = Learning(kept)
    made.forget_old(NOW + KEPT_S + 1, lambda _: frozenset())
    assert not made.names(WHO)


def test_of_too_many_the_newest_are_read() -> None:
    many = {
        f"vip/10.{96 + (number >> 16)}.{number >> 8 & 255}.{number & 255}:80": NOW - number for number in range(3000)
    }
    kept = sound({WHO: many}, NOW)[WHO]
    assert len(kept) == MOST_NAMES
    assert min(kept.values()) == NOW - MOST_NAMES + 1


def test_a_full_disk_costs_neither_the_old_file_nor_room(tmp_path: Path) -> None:
    """On a real full file system, in a mount namespace of its own."""
    script = f"""
import os, sys
from pathlib import Path
from tulle.serve.learned import LearnedFile
place = Path({str(tmp_path)!r})
file = LearnedFile(place / "learned.json")
file.write({{"spiffe://a": {{"vip/10.96.0.1:80": 1.0}}}})
with (place / "filler").open("wb", buffering=0) as filler:
    try:
        while True:
            filler.write(b"x" * 4096)
    except OSError:
        pass
many = {{f"vip/10.96.{{number >> 8}}.{{number & 255}}:80": 1.0 for number in range(2000)}}
try:
    file.write({{"spiffe://a": many}})
    sys.exit("the disk was not full")
except OSError as error:
    print(error.strerror)
print(sorted(path.name for path in place.iterdir()), file.read())
"""
    mount = (
        f"mount -t tmpfs -o size=64k none {tmp_path} && exec {sys.executable} -c '{script.replace(chr(39), chr(34))}'"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "No space left on device",
        "['filler', 'learned.json'] {'spiffe://a': {'vip/10.96.0.1:80': 1.0}}",
    ]


def started(mesh: Mesh) -> None:
    mesh.settings.update(ON_DEMAND)
    mesh.write("a.yaml", service("web", "shop", ip="10.96.0.1"))
    mesh.pods(pod("app-1", "shop", "10.1.0.2", app="app"))
    mesh.start()


def asks(mesh: Mesh, name: str) -> None:
    with Ads(unix(mesh.run / "xds" / uid_of("app-1", "shop") / "xds.sock")) as ads:
        ads.everything()
        ads.say(TypeUrl.RDS, resource_names_subscribe=["vip"])
        ads.say(TypeUrl.VHDS)
        ads.say(TypeUrl.VHDS, resource_names_subscribe=[name])
        found: set[str] = set()
        while name not in found:
            answer = ads.hear()
            found |= {one.name for one in answer.resources}
            ads.ack(answer)


def test_what_cannot_be_opened_does_not_keep_the_mesh_from_starting(mesh: Mesh) -> None:
    (mesh.state / "learned.json").mkdir()
    started(mesh)
    asks(mesh, GOOD)


def test_what_cannot_be_written_is_said_once_and_written_when_it_can_be(mesh: Mesh) -> None:
    blocked = mesh.state / "learned.new"
    blocked.mkdir()
    started(mesh)
    asks(mesh, GOOD)
    until(lambda: "not written down" in mesh.log.read_text(), "the warning", 15)
    time.sleep(11)  # two more attempts
    assert mesh.log.read_text().count("not written down") == 1
    blocked.rmdir()
    path = mesh.state / "learned.json"
    until(path.exists, "the file", 15)
    assert next(iter(msgspec.json.decode(path.read_bytes())["workloads"].values())).keys() == {GOOD}
