"""Cases 09 and 10, wherever they run: a circuit breaker for a host outside the mesh, and that host by DNS and SNI."""

from collections.abc import Iterable
from typing import Any, Protocol

from case_sets import Cases
from certificates import serial
from clients import Client

UNLISTED = "unlisted.example.test"


class Outside(Protocol):
    """A mesh that refuses unknown hosts, and a machine out there that the external host's name leads to, and another one's."""

    certificate: bytes
    """Of the machine out there."""

    @property
    def caller(self) -> Client:
        """In the namespace of the circuit breaker."""

    @property
    def there(self) -> str:
        """The address of the machine out there."""

    def apply(self, manifest: str) -> str:
        """Live on every proxy when it returns; all that was said."""

    def delete(self, kind: str, name: str, ns: str) -> None:
        """Whether or not it is there."""

    def metrics(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        """Series of the caller's proxy."""

    def logged(self, **fields: str) -> dict[str, Any]:
        """The newest line of the caller's proxy with these fields; waits for one."""


def remove(outside: Outside, cases: Cases) -> None:
    """Neither case applies."""
    for kind, name, ns in (
        ("serviceentry", "over-http", "default"),
        ("serviceentry", "paypal" if cases.name == "verbatim" else "pay", "default"),
        (
            "destinationrule",
            "paypal-circuit-breaker" if cases.name == "verbatim" else "pay-breaker",
            cases.breaker_namespace,
        ),
    ):
        outside.delete(kind, name, ns)


def tls(outside: Outside, host: str, **job: object) -> dict[str, object]:
    """A TLS connection to a host, by the name in DNS and the same SNI."""
    lines = [f"GET / HTTP/1.1\r\nhost: {host}\r\n\r"]
    return outside.caller.stream(host, 443, tls=True, sni=host, lines=lines, timeout=5, **job)


def reached_by_dns_and_sni_and_others_are_not(outside: Outside, cases: Cases) -> None:
    remove(outside, cases)
    assert tls(outside, cases.external)["outcome"] != "ok"
    outside.apply(cases.path("printed/10").read_text())
    found = tls(outside, cases.external)
    assert found["outcome"] == "ok", found
    assert serial(str(found["certificate"])) == serial(outside.certificate)
    refused = tls(outside, UNLISTED)
    assert refused["outcome"] != "ok", refused
    by_address = outside.caller.http(outside.there, 80, n=3, fresh=True)
    assert not any(outcome.startswith("200") for outcome in by_address.counts), by_address.counts
    opened = [
        (labels, value)
        for labels, value in outside.metrics("istio_tcp_connections_opened_total")
        if labels["destination_service"] == cases.external
    ]
    assert opened, list(outside.metrics("istio_tcp_connections_opened_total"))
    assert opened[0][0]["reporter"] == "source"
    assert opened[0][0]["destination_service_name"] == cases.external
    cluster = f"outbound|443||{cases.external}"
    assert outside.logged(upstream_cluster=cluster)["response_flags"] == "-"
    # Whoever found the address elsewhere is known by SNI; the address alone opens nothing.
    there = outside.there
    by_sni = tls(outside, cases.external, address=there)
    assert by_sni["outcome"] == "ok", by_sni
    assert outside.logged(requested_server_name=cases.external)["upstream_cluster"] == cluster
    by_other = tls(outside, UNLISTED, address=there)
    assert by_other["outcome"] != "ok", by_other


OVER_HTTP = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: over-http, namespace: default}
spec:
  hosts: [HOST]
  location: MESH_EXTERNAL
  ports:
  - {number: 80, name: http, protocol: HTTP}
  resolution: DNS
"""


def limits_and_ejects_over_http(outside: Outside, cases: Cases) -> None:
    remove(outside, cases)
    outside.apply(OVER_HTTP.replace("HOST", cases.external))
    told = outside.apply(cases.path("printed/09").read_text())
    assert "TUL0205" in told, told
    assert "consecutiveErrors" in told
    caller, host = outside.caller, cases.external
    few = caller.http(host, n=40, concurrency=1, keep=40)
    assert few.only("200 there"), few.counts
    assert max(answer["body"]["request"] for answer in few.answers) == 2
    not_counted = caller.http(host, path="/status/500", n=4)
    assert not_counted.only("500 there"), "gateway errors count, others do not (Istio's conversion)"
    twice = caller.http(host, path="/status/502", n=2)
    assert twice.only("502 there"), twice.counts
    ejected = caller.http(host, n=5)
    assert ejected.only("503"), ejected.counts
    assert outside.logged(response_flags="UH", authority=host)
    # A cluster made anew has ejected nobody. Refused requests count as errors of the host, so this comes last.
    remove(outside, cases)
    outside.apply(OVER_HTTP.replace("HOST", cases.external))
    outside.apply(cases.path("printed/09").read_text())
    caller.until("200 there", host)
    # One after the other: while its connection is being opened a request counts as pending, too.
    crowd = caller.http(host, path="/delay/4", n=12, concurrency=12, apart=0.2, timeout=20)
    assert crowd.counts == {"200 there": 7, "503": 5}, crowd.counts
    assert outside.logged(response_flags="UO", authority=host)


def hold_together(outside: Outside, cases: Cases) -> None:
    remove(outside, cases)
    outside.apply(cases.path("printed/10").read_text())
    outside.apply(cases.path("printed/09").read_text())
    job = {
        "tls": True,
        "sni": cases.external,
        "lines": [f"GET / HTTP/1.1\r\nhost: {cases.external}\r\n\r"],
        "timeout": 5,
    }
    # One after the other: 2 that wait for their connection are the other limit.
    crowd = outside.caller.ask("streams", host=cases.external, port=443, n=9, seconds=2.0, apart=0.1, **job)
    assert crowd["counts"].pop("ok") == 5, crowd
    assert sum(crowd["counts"].values()) == 4
    log = outside.logged(response_flags="UO")
    assert log["upstream_cluster"] == f"outbound|443||{cases.external}"
    alone = tls(outside, cases.external)
    assert alone["outcome"] == "ok", alone
