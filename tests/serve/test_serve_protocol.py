"""The discovery service over real sockets, asked by a client of our own: who gets what, and who gets nothing."""

from typing import Any

import grpc
import pytest
from ads_client import Ads, unix, versions
from key_pairs import key_pair, secret
from serve_parts import Mesh, pod, service, uid_of, until, virtual_service

from tulle.xds import api, schema
from tulle.xds.names import TypeUrl

REVIEWS = {"id": "sidecar~10.1.0.2~reviews-1.default~default.svc.cluster.local", "metadata": {"NAMESPACE": "default"}}
SIDECAR_OF_WEB = {"id": "sidecar~10.1.0.3~web-1.shop~shop.svc.cluster.local", "metadata": {"NAMESPACE": "shop"}}


@pytest.fixture
def shop(mesh: Mesh) -> Mesh:
    mesh.write("a.yaml", service("reviews", "default", ip="10.96.0.1"), service("web", "shop", ip="10.96.0.2"))
    mesh.pods(
        pod("reviews-1", "default", "10.1.0.2", app="reviews", sa="reviews"),
        pod("web-1", "shop", "10.1.0.3", app="web", sa="web"),
        pod("gw-1", "shop", "10.1.0.4", app="gw", gateway=True, labels={"istio": "gw"}),
    )
    return mesh


def socket_of(mesh: Mesh, name: str, ns: str) -> object:
    return mesh.run / "xds" / uid_of(name, ns) / "xds.sock"


def gateway(name: str, ns: str, credential: str, port: int = 8443) -> dict[str, Any]:
    tls = {"mode": "SIMPLE", "credentialName": credential}
    server = {"port": {"number": port, "name": "https", "protocol": "HTTPS"}, "hosts": ["*"], "tls": tls}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": ns},
        "spec": {"selector": {"istio": "gw"}, "servers": [server]},
    }


def sent_pair(response: Any) -> tuple[bytes, bytes]:
    made = api.Secret.FromString(response.resources[0].resource.value)
    return made.tls_certificate.certificate_chain.inline_bytes, made.tls_certificate.private_key.inline_bytes


def leaf_of(mesh: Mesh, name: str, ns: str) -> tuple[bytes, bytes, bytes]:
    """(chain, key, roots) as the pod's own proxy gets them."""
    with Ads(unix(socket_of(mesh, name, ns))) as ads:
        ads.say(TypeUrl.SDS, resource_names_subscribe=["default"])
        response = ads.hear(TypeUrl.SDS)
        chain, key = sent_pair(response)
        ads.ack(response)
        ads.say(TypeUrl.SDS, resource_names_subscribe=["ROOTCA"])
        roots = api.Secret.FromString(ads.hear(TypeUrl.SDS).resources[0].resource.value)
        return chain, key, roots.validation_context.trusted_ca.inline_bytes


def test_a_pod_socket_is_the_pods_identity_whatever_the_node_says(shop: Mesh) -> None:
    shop.start()
    with Ads(unix(socket_of(shop, "reviews-1", "default"))) as ads:
        ads.everything(node=SIDECAR_OF_WEB)
        assert shop.proxies()["reviews-1.default"]["identity"] == "spiffe://cluster.local/ns/default/sa/reviews"
        ads.say(TypeUrl.SDS, resource_names_subscribe=["default"])
        chain, _ = sent_pair(ads.hear(TypeUrl.SDS))
    from cryptography import x509

    names = x509.load_pem_x509_certificates(chain)[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://cluster.local/ns/default/sa/reviews"
    ]


def test_what_a_client_already_holds_is_not_sent_again_even_by_another_replica(shop: Mesh, tmp_path: Any) -> None:
    shop.start()
    with Ads(unix(socket_of(shop, "reviews-1", "default"))) as ads:
        held = ads.everything(node=REVIEWS)
    shop.kill()
    (shop.state / "ca" / "roots.json").unlink()  # another replica shares the configuration, not this directory
    shop.start()
    with Ads(unix(socket_of(shop, "reviews-1", "default"))) as ads:
        for url in (TypeUrl.CDS, TypeUrl.LDS):
            ads.say(url, node=REVIEWS, initial_resource_versions=held[url])
            answer = ads.hear(url)
            assert not answer.resources
            assert not answer.removed_resources
            ads.ack(answer)
        ads.say(TypeUrl.RDS, resource_names_subscribe=["9080"])
        assert list(versions(ads.hear(TypeUrl.RDS))) == ["9080"]


def test_state_of_the_world_lists_everything_and_leaves_out_what_is_gone(shop: Mesh) -> None:
    shop.settings["discovery"] = "on-demand"  # it cannot ask
    shop.start()
    with Ads(unix(socket_of(shop, "reviews-1", "default")), sotw=True) as ads:
        ads.say_sotw(TypeUrl.CDS, node=REVIEWS)
        first = ads.hear(TypeUrl.CDS)
        names = {schema.from_any(resource.SerializeToString()).name for resource in first.resources}
        assert "outbound|9080||web.shop.svc.cluster.local" in names
        ads.say_sotw(TypeUrl.CDS, response_nonce=first.nonce, version_info=first.version_info)
        shop.write("a.yaml", service("reviews", "default", ip="10.96.0.1"))
        second = ads.hear(TypeUrl.CDS)
        left = {schema.from_any(resource.SerializeToString()).name for resource in second.resources}
        assert left == {name for name in names if "web.shop" not in name}


def test_a_deleted_pod_ends_its_stream_and_its_socket(shop: Mesh) -> None:
    shop.start()
    path = socket_of(shop, "reviews-1", "default")
    with Ads(unix(path)) as ads:
        ads.everything(node=REVIEWS)
        shop.pods(pod("web-1", "shop", "10.1.0.3", app="web", sa="web"))
        assert ads.ended().code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    until(lambda: not path.exists(), "the socket to go")
    assert set(shop.proxies()) == {"web-1.shop"}


def test_only_a_gateway_of_the_secrets_namespace_gets_it(shop: Mesh) -> None:
    pair = key_pair("shop")
    shop.write("s.yaml", secret("cert", "shop", pair), secret("other", "shop", pair), secret("cert", "default", pair))
    shop.write("g.yaml", gateway("gw", "shop", "cert"))
    shop.start()
    names = ["kubernetes://shop/cert", "kubernetes://shop/other", "kubernetes://default/cert"]
    with Ads(unix(socket_of(shop, "gw-1", "shop"))) as ads:
        ads.say(TypeUrl.SDS, resource_names_subscribe=names)
        answer = ads.hear(TypeUrl.SDS)
        assert list(versions(answer)) == names[:1], "only what a Gateway of this workload uses"
        assert sorted(answer.removed_resources) == sorted(names[1:])
        assert sent_pair(answer) == (pair.certificate.encode(), pair.key.encode())
    with Ads(unix(socket_of(shop, "web-1", "shop"))) as ads:
        ads.say(TypeUrl.SDS, resource_names_subscribe=names)
        answer = ads.hear(TypeUrl.SDS)
        assert not answer.resources, "a sidecar of the same namespace gets no gateway's certificate"
    for target in ("/v1/objects?document=1", "/v1/plan?proxy=gw-1.shop", "/v1/intent", "/metrics"):
        assert pair.telltale not in str(shop.ask("GET", target)[1])
    assert pair.telltale not in shop.log.read_text()


def test_a_replaced_secret_is_pushed_and_nothing_else(shop: Mesh) -> None:
    shop.write("s.yaml", secret("cert", "shop", key_pair("first")))
    shop.write("g.yaml", gateway("gw", "shop", "cert"))
    shop.start()
    with Ads(unix(socket_of(shop, "gw-1", "shop"))) as ads:
        ads.everything()
        ads.say(TypeUrl.SDS, resource_names_subscribe=["kubernetes://shop/cert", "ROOTCA", "default"])
        first = ads.hear(TypeUrl.SDS)
        ads.ack(first)
        pair = key_pair("second")
        shop.write("s.yaml", secret("cert", "shop", pair))
        second = ads.hear(TypeUrl.SDS)
        assert list(versions(second)) == ["kubernetes://shop/cert"]
        assert sent_pair(second) == (pair.certificate.encode(), pair.key.encode())
        ads.ack(second)
        assert ads.is_quiet()


def test_plaintext_gives_configuration_to_anybody_and_secrets_to_nobody(shop: Mesh) -> None:
    shop.write("v.yaml", virtual_service("reviews", "default", "reviews", timeout="3s"))
    shop.start("--xds-plaintext", "127.0.0.1:0")
    port = port_in(shop, "xDS without identities")
    with Ads(grpc.insecure_channel(f"127.0.0.1:{port}")) as ads:
        held = ads.everything(node=REVIEWS)
        assert "inbound|9080||" in held[TypeUrl.CDS], "the view of the workload it says it is"
        ads.say(TypeUrl.SDS, resource_names_subscribe=["default", "ROOTCA"])
        ads.say(TypeUrl.RDS, resource_names_subscribe=["9080"])
        assert ads.hear().type_url == TypeUrl.RDS.value, "secrets are not even refused"
    assert "TUL0803" in shop.log.read_text()
    unknown = {
        "id": "sidecar~10.9.9.9~nobody.elsewhere~x",
        "metadata": {"NAMESPACE": "elsewhere", "CLUSTER_ID": "Kubernetes"},
    }
    with Ads(grpc.insecure_channel(f"127.0.0.1:{port}")) as ads:
        held = ads.everything(node=unknown)
        assert "outbound|9080||reviews.default.svc.cluster.local" in held[TypeUrl.CDS]
        assert not any(name.startswith("inbound|") for name in held[TypeUrl.CDS])


def test_plaintext_without_any_workload(mesh: Mesh) -> None:
    mesh.write("a.yaml", service("reviews", "default", ip="10.96.0.1"))
    mesh.start("--xds-plaintext", "127.0.0.1:0")
    port = port_in(mesh, "xDS without identities")
    with Ads(grpc.insecure_channel(f"127.0.0.1:{port}"), sotw=True) as ads:
        ads.say_sotw(TypeUrl.LDS, node={"id": "router~10.0.0.1~gw.default~x", "metadata": {"LABELS": {"istio": "gw"}}})
        answer = ads.hear(TypeUrl.LDS)
        assert not answer.resources, "no Gateway, no listener"
        ads.say_sotw(TypeUrl.LDS, response_nonce=answer.nonce, version_info=answer.version_info)
        open_server = {"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
        made = gateway("gw", "default", "")
        made["spec"]["servers"] = [open_server]
        mesh.write("g.yaml", made, virtual_service("v", "default", "reviews"))
        assert len(ads.hear(TypeUrl.LDS).resources) == 1


def test_tls_takes_the_identity_from_the_certificate_and_the_pod_from_the_node(shop: Mesh) -> None:
    shop.start("--xds-tls", "127.0.0.1:0")
    port = port_in(shop, "xDS over TLS")
    chain, key, roots = leaf_of(shop, "web-1", "shop")

    def channel(*pair: bytes) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(roots, *reversed(pair))
        return grpc.secure_channel(f"127.0.0.1:{port}", credentials)

    with Ads(channel(chain, key)) as ads:
        ads.everything(node=SIDECAR_OF_WEB)
        ads.say(TypeUrl.SDS, resource_names_subscribe=["default"])
        assert sent_pair(ads.hear(TypeUrl.SDS))[1].startswith(b"-----BEGIN PRIVATE KEY-----")
        assert shop.proxies()["web-1.shop"]["transport"] == "tls"
    with Ads(channel(chain, key)) as ads:
        ads.say(TypeUrl.CDS, node=REVIEWS)
        ended = ads.ended()
        assert ended.code() == grpc.StatusCode.PERMISSION_DENIED
        assert "TUL0804" in str(ended.details())
    with Ads(channel()) as ads:
        ads.say(TypeUrl.CDS, node=SIDECAR_OF_WEB)
        assert ads.ended().code() == grpc.StatusCode.UNAVAILABLE, "no certificate, no handshake"


def test_broken_requests_end_their_stream_only(shop: Mesh) -> None:
    shop.start()
    with Ads(unix(socket_of(shop, "reviews-1", "default"))) as good:
        good.everything(node=REVIEWS)
        for body in (b"\xff\xff\xff", b""):
            with Ads(unix(socket_of(shop, "reviews-1", "default"))) as bad:
                bad._says.put(body)
                assert bad.ended().code() == grpc.StatusCode.INVALID_ARGUMENT
        shop.write("v.yaml", virtual_service("reviews", "default", "reviews", timeout="3s"), service("more", "default"))
        assert good.hear(TypeUrl.CDS)


def test_the_names_file_lists_what_dns_answers(shop: Mesh) -> None:
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "api", "namespace": "default"},
        "spec": {
            "hosts": ["api.example.com"],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "10.9.9.9"}],
        },
    }
    shop.write(
        "b.yaml",
        service("peers", "default", clusterIP="None", selector={"app": "reviews"}),
        service("ext", "default", type="ExternalName", externalName="example.org", selector=None, ports=None),
        entry,
    )
    shop.start()
    import json

    found = json.loads((shop.run / "names.json").read_text())["names"]
    assert found["reviews.default.svc.cluster.local"] == {"a": ["10.96.0.1"], "cname": ""}
    assert found["peers.default.svc.cluster.local"]["a"] == ["10.1.0.2"]
    assert found["reviews-1.peers.default.svc.cluster.local"]["a"] == ["10.1.0.2"]
    assert found["ext.default.svc.cluster.local"] == {"a": [], "cname": "example.org"}
    assert found["api.example.com"]["a"][0].startswith("240.240.")


def port_in(mesh: Mesh, event: str) -> int:
    def port() -> int | None:
        lines = [line for line in mesh.log.read_text().splitlines() if event in line and "port=" in line]
        return int(lines[-1].rpartition("port=")[2]) if lines else None

    found: int = until(port, event)
    return found


def test_what_strangers_asked_for_is_forgotten_when_they_leave(shop: Mesh) -> None:
    shop.start("--xds-plaintext", "127.0.0.1:0")
    port = port_in(shop, "xDS without identities")
    before = reading(shop, "tulle_engine_nodes")
    for number in range(30):
        with Ads(grpc.insecure_channel(f"127.0.0.1:{port}")) as ads:
            ads.everything(node={"id": f"sidecar~1.1.1.1~x.ns-{number}~x", "metadata": {"NAMESPACE": f"ns-{number}"}})
    assert reading(shop, "tulle_engine_nodes") > before + 30
    until(lambda: reading(shop, "tulle_engine_nodes") <= before + 5, "the answers to be forgotten", 25)
    assert reading(shop, "pilot_xds") == 0
    assert reading(shop, "tulle_views") == 0


def reading(mesh: Mesh, name: str) -> float:
    lines = mesh.ask("GET", "/metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))
