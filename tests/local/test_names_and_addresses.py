"""Names and addresses: DNS answers held against a real resolver library, address books, bootstraps against the schema."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from tulle.compile.envoy import bootstrap
from tulle.compile.envoy.bootstrap import PublishedPort
from tulle.local import dns_wire, envoys
from tulle.local.addresses import Book, network, slot
from tulle.local.dns_wire import Host
from tulle.local.published import preferred_host_port
from tulle.xds import schema

NAMES = {
    "reviews.shop.svc.cluster.local": Host(("10.1.2.3",)),
    "alias.shop.svc.cluster.local": Host((), "reviews.shop.svc.cluster.local"),
    "outside.shop.svc.cluster.local": Host((), "example.org"),
    "*.example.com": Host(("10.9.9.9", "10.9.9.8")),
}


def asked(name: str, kind: str = "A") -> dns.message.Message | None:
    message = dns.message.make_query(name, kind).to_wire()
    question = dns_wire.question(message)
    assert question is not None
    answer = dns_wire.answer(message, question, NAMES, "cluster.local")
    return None if answer is None else dns.message.from_wire(answer)


def addresses(name: str, kind: str = "A") -> list[str]:
    answer = asked(name, kind)
    assert answer is not None
    assert answer.flags & dns.flags.AA
    return [str(item) for found in answer.answer for item in found]


def test_a_name_of_the_mesh() -> None:
    assert addresses("Reviews.shop.svc.cluster.local") == ["10.1.2.3"]


def test_an_alias_of_the_mesh() -> None:
    assert addresses("alias.shop.svc.cluster.local") == ["reviews.shop.svc.cluster.local.", "10.1.2.3"]


def test_a_wildcard() -> None:
    assert addresses("a.b.example.com") == ["10.9.9.9", "10.9.9.8"]


def test_no_ipv6_is_no_error() -> None:
    answer = asked("reviews.shop.svc.cluster.local", "AAAA")
    assert answer is not None
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


def test_an_unknown_name_of_the_mesh_does_not_exist() -> None:
    answer = asked("nobody.shop.svc.cluster.local")
    assert answer is not None
    assert answer.rcode() == dns.rcode.NXDOMAIN


def test_the_rest_is_for_others() -> None:
    assert asked("example.org") is None
    assert asked("outside.shop.svc.cluster.local") is None


@pytest.mark.parametrize("junk", [b"", b"\0" * 11, b"\0" * 12, b"\xff" * 40, b"\0\1\1\0\0\1" + b"\0" * 6 + b"\x3fabc"])
def test_junk_is_no_question(junk: bytes) -> None:
    assert dns_wire.question(junk) is None


def test_addresses_stay_and_never_meet() -> None:
    book = Book("10.1.0.0/16")
    given = {name: book.address(name) for name in map(str, range(2000))}
    assert len(set(given.values())) == 2000
    assert given == {name: book.address(name) for name in given}
    assert given["7"] == Book("10.1.0.0/16").address("7")


def test_meshes_have_networks_of_their_own() -> None:
    taken: set[int] = set()
    for name in map(str, range(40)):
        taken.add(slot(name, taken))
    assert len(taken) == 40
    assert len({network(one).pods for one in taken} | {network(one).services for one in taken}) == 80


def test_a_full_network_is_an_error() -> None:
    book = Book("10.1.0.0/27", {str(number): f"10.1.0.{number}" for number in range(16, 31)})
    with pytest.raises(OverflowError):
        book.address("one more")


@pytest.mark.parametrize(("port", "expected"), [(80, 8080), (443, 8443), (25, 8025), (9000, 9000), (81, 7000)])
def test_where_a_gateway_port_is_offered(port: int, expected: int) -> None:
    assert preferred_host_port(port, {81: 7000}) == expected


NODE = bootstrap.Node(
    "10.1.2.3", "reviews-1", "shop", "reviews", "acc", (("app", "reviews"),), "Kubernetes", "cluster.local", "abc"
)
PORTS = (PublishedPort(80, 8080, (("10.1.1.1", 8080),)),)


def test_the_node_is_istios() -> None:
    assert NODE.id == "sidecar~10.1.2.3~reviews-1.shop~shop.svc.cluster.local"


@pytest.mark.parametrize(
    "made",
    [bootstrap.sidecar(NODE), bootstrap.host_edge("/x", "/x/a"), bootstrap.fabric_edge()],
    ids=["sidecar", "host", "fabric"],
)
def test_bootstraps_fit_the_schema(made: dict[str, Any]) -> None:
    schema.from_dict("envoy.config.bootstrap.v3.Bootstrap", made)


def test_files_of_the_edge_fit_the_schema() -> None:
    for content in (*bootstrap.host_edge_files("/x", PORTS).values(), *bootstrap.fabric_edge_files(PORTS).values()):
        for resource in content["resources"]:
            kind = resource["@type"].partition("/")[2]
            schema.from_dict(kind, {name: value for name, value in resource.items() if name != "@type"})


@pytest.mark.envoy
@pytest.mark.parametrize("which", ["sidecar", "host", "fabric"])
def test_envoy_takes_the_bootstraps(which: str, tmp_path: Path) -> None:
    directory = str(tmp_path)
    files = {**bootstrap.host_edge_files(directory, PORTS), **bootstrap.fabric_edge_files(PORTS)}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content).replace(bootstrap.EDGE_DIRECTORY, directory))
    made = {
        "sidecar": lambda: bootstrap.sidecar(NODE),
        "host": lambda: bootstrap.host_edge(directory, f"{directory}/a.sock"),
        "fabric": lambda: json.loads(json.dumps(bootstrap.fabric_edge()).replace(bootstrap.EDGE_DIRECTORY, directory)),
    }[which]()
    command = (*envoys.command_line(envoys.binary(), made), "--mode", "validate")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()
