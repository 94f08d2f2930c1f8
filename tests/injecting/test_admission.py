"""The admission server over real TLS, and what it answers; the reviews are those that an API server sends."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from injecting_goldens import CASES

from tulle.app.cluster.admission import injector, validator
from tulle.injecting.settings import InjectionSettings
from tulle.kube.webhook import MAX_REVIEW_BYTES, Answered, KeyPair, Webhook

Json = dict[str, Any]
Made = Callable[[str], tuple[str, str]]
NAME = "tulled.tulle-system.svc"


def review(raw: Json, kind: str = "Pod", group: str = "", old: Json | None = None, operation: str = "CREATE") -> Json:
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": group, "version": "v1", "kind": kind},
        "resource": {"group": group, "version": "v1", "resource": "whatever"},
        "namespace": "shop",
        "operation": operation,
        "userInfo": {"username": "admin"},
        "object": raw,
        "oldObject": old,
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


class Server:
    """A webhook, its port, and roots to trust."""

    def __init__(self, webhook: Webhook, port: int, certificate: str) -> None:
        self.webhook = webhook
        self.port = port
        self.certificate = certificate

    async def ask(self, path: str, body: bytes | Json, *, method: str = "POST") -> tuple[int, Json]:
        """Status and answer, over a connection of its own."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.trusting(), server_hostname=NAME
        )
        head = f"{method} {path} HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: {len(raw)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + raw)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        status, _, text = answer.partition(b"\r\n\r\n")
        body_json: Json = json.loads(text) if text.startswith(b"{") else {}
        return int(status.split()[1]), body_json

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.certificate)
        context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT  # it signs itself, and has no key identifiers
        return context


@pytest.fixture
async def server(certificate_for: Made) -> AsyncIterator[Server]:
    chain, key = certificate_for(NAME)

    def fails(_: object) -> Answered:
        raise RuntimeError("a defect")

    handlers = {"/inject": injector(InjectionSettings()), "/validate": validator("Kubernetes"), "/fails": fails}
    webhook = Webhook(handlers, KeyPair(chain.encode(), key.encode()))
    port = await webhook.open("127.0.0.1", 0)
    yield Server(webhook, port, chain)
    await webhook.close()


def patched(raw: Json, answer: Json) -> Json:
    """The object after the patch: RFC 6902 as far as it is used."""
    made: Json = json.loads(json.dumps(raw))
    for operation in json.loads(base64.b64decode(answer["response"]["patch"])):
        *way, last = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        place = made
        for step in way:
            place = place[step]
        if operation["op"] == "remove":
            del place[last]
        else:
            assert (last in place) is (operation["op"] == "replace")
            place[last] = operation["value"]
    return made


async def test_a_pod_is_injected(server: Server) -> None:
    case = next(one for one in CASES if one.folder.name == "deployment")
    pod = case.written()["pod"]
    status, answer = await server.ask("/inject", review(pod))
    assert status == 200
    assert answer["response"]["allowed"] is True
    assert answer["response"]["uid"] == "705ab4f5-6393-11e8-b7cc-42010a800002"
    assert patched(pod, answer) == case.answer().pod


async def test_a_pod_that_refuses_and_one_that_has_its_proxy(server: Server) -> None:
    pod: Json = {"metadata": {"name": "a", "labels": {"sidecar.istio.io/inject": "false"}}, "spec": {"containers": []}}
    assert "patch" not in (await server.ask("/inject", review(pod)))[1]["response"]
    pod["metadata"]["labels"] = {}
    first = patched(pod, (await server.ask("/inject", review(pod)))[1])
    assert "patch" not in (await server.ask("/inject", review(first)))[1]["response"]


async def test_what_is_odd_is_said(server: Server) -> None:
    pod = {"metadata": {"name": "a", "annotations": {"tulle.dev/drain-seconds": "soon"}}, "spec": {"containers": []}}
    warnings = (await server.ask("/inject", review(pod)))[1]["response"]["warnings"]
    assert [one.split()[0] for one in warnings] == ["TUL1201"]


ROUTES: Json = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "reviews", "namespace": "shop"},
    "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews"}}]}]},
}


def broken() -> Json:
    raw: Json = json.loads(json.dumps(ROUTES))
    raw["spec"]["http"][0]["timeout"] = "soon"
    return raw


async def test_configuration_is_judged(server: Server) -> None:
    group = "networking.istio.io"
    assert (await server.ask("/validate", review(ROUTES, "VirtualService", group)))[1]["response"]["allowed"] is True
    refused = (await server.ask("/validate", review(broken(), "VirtualService", group)))[1]["response"]
    assert refused["allowed"] is False
    assert refused["status"]["message"].startswith("TUL")
    assert "spec.http[0].timeout" in refused["status"]["message"]


async def test_what_is_stored_already_may_get_labels_and_may_go(server: Server) -> None:
    labelled = broken()
    labelled["metadata"]["labels"] = {"a": "b"}
    review_of = review(labelled, "VirtualService", "networking.istio.io", broken(), "UPDATE")
    answer = (await server.ask("/validate", review_of))[1]["response"]
    assert (answer["allowed"], len(answer["warnings"])) == (True, 1)
    changed = broken()
    changed["spec"]["hosts"] = ["other"]
    review_of = review(changed, "VirtualService", "networking.istio.io", broken(), "UPDATE")
    assert (await server.ask("/validate", review_of))[1]["response"]["allowed"] is False
    changed["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    review_of = review(changed, "VirtualService", "networking.istio.io", broken(), "UPDATE")
    assert (await server.ask("/validate", review_of))[1]["response"]["allowed"] is True


async def test_what_is_no_review_is_refused(server: Server) -> None:
    assert (await server.ask("/inject", b"{"))[0] == 400
    assert (await server.ask("/inject", b'{"request": {}}'))[0] == 400
    assert (await server.ask("/inject", b"", method="GET"))[0] == 405
    assert (await server.ask("/other", b"{}"))[0] == 404
    assert (await server.ask("/inject", b"x" * (MAX_REVIEW_BYTES + 1)))[0] == 413


async def test_a_handler_that_fails_is_no_judgement(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    assert (await server.ask("/fails", review({})))[0] == 500
    assert "a defect" in caplog.text


async def test_the_certificate_is_renewed_in_place(server: Server, certificate_for: Made) -> None:
    """New connections see the new one; one that is open goes on."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=server.trusting(), server_hostname=NAME
    )
    chain, key = certificate_for(NAME)
    server.webhook.renew(KeyPair(chain.encode(), key.encode()))
    with pytest.raises(ssl.SSLCertVerificationError):
        await server.ask("/inject", b"{}")
    server.certificate = chain
    assert (await server.ask("/inject", b"{}"))[0] == 400
    writer.write(f"POST /inject HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: 1\r\n\r\n{{".encode())
    assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"400"
    writer.close()


async def test_a_key_of_another_certificate_changes_nothing(server: Server, certificate_for: Made) -> None:
    chain, _ = certificate_for(NAME)
    _, key = certificate_for(NAME)
    with pytest.raises(ssl.SSLError):
        server.webhook.renew(KeyPair(chain.encode(), key.encode()))
    assert (await server.ask("/inject", b"{}"))[0] == 400


def test_a_key_pair_shows_no_key(certificate_for: Made, tmp_path: Path) -> None:
    chain, key = certificate_for(NAME)
    assert "PRIVATE" not in repr(KeyPair(chain.encode(), key.encode()))
    assert not list(tmp_path.iterdir())
