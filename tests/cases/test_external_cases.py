"""Cases 09 and 10 on one machine; each alone and both."""

from collections.abc import Iterable, Iterator
from typing import Any

import external_rows as rows
import pytest
from case_sets import Cases
from certificates import self_signed
from clients import Client
from local_mesh import LocalMesh
from names import World, world
from shapes import client, echo, manifest, namespace

pytestmark = pytest.mark.mesh


class Outside:
    """A world that knows some names, and a machine out there: a pod without a sidecar."""

    def __init__(self, mesh: LocalMesh, world: World, certificate: bytes, ns: str) -> None:
        self.mesh = mesh
        self.world = world
        self.certificate = certificate
        self._ns = ns

    @property
    def caller(self) -> Client:
        return self.mesh.client("caller")

    @property
    def there(self) -> str:
        return self.mesh.address("there", "world")

    def apply(self, manifest: str) -> str:
        said = self.mesh.apply(manifest)
        return said.stdout + said.stderr

    def delete(self, kind: str, name: str, ns: str) -> None:
        self.mesh.tulle("delete", kind, name, "-n", ns, check=False)

    def metrics(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        return self.mesh.metrics("caller", self._ns, name)

    def logged(self, **fields: str) -> dict[str, Any]:
        return self.mesh.logged("caller", self._ns, **fields)


@pytest.fixture(scope="module")
def outside(cases: Cases) -> Iterator[Outside]:
    certificate, key = self_signed(cases.external)
    with world() as names:
        mesh = LocalMesh(settings={"registryOnly": True}, resolver=names.address)
        place = mesh.installed.programs / mesh.name
        for name, content in (("cert.pem", certificate), ("key.pem", key)):
            mesh.installed.file_for_user(place / name, content)
        tls = f"443:{place}/cert.pem:{place}/key.pem"
        mesh.add(
            manifest(
                namespace(cases.breaker_namespace),
                namespace("world", inject=False),
                client("caller", cases.breaker_namespace),
                echo("there", "world", "there", inject=False, http=80, tls=tls, tcp=7000),
            )
        )
        with mesh:
            for host in (cases.external, rows.UNLISTED):
                names.names[host] = mesh.address("there", "world")
            yield Outside(mesh, names, certificate, cases.breaker_namespace)


def test_10_is_reached_by_dns_and_sni_and_others_are_not(outside: Outside, cases: Cases) -> None:
    rows.reached_by_dns_and_sni_and_others_are_not(outside, cases)
    assert cases.external in outside.world.asked


def test_09_limits_and_ejects_over_http(outside: Outside, cases: Cases) -> None:
    rows.limits_and_ejects_over_http(outside, cases)


def test_09_with_10_hold_together(outside: Outside, cases: Cases) -> None:
    rows.hold_together(outside, cases)
