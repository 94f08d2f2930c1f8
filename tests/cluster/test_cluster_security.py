"""Who gets what of the control plane in a real cluster: stolen tokens, invented metadata, other pods' keys, gateways' Secrets; and the
cluster while our webhooks are away.

The client is a discovery client of the tests with tokens that the API made; every refusal stands beside the same request that is served.
"""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from kubelab.cluster import Cluster
from mesh_parts import LITTLE, mesh_in

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
from ads_client import Ads, names
from key_pairs import key_pair

from tulle.xds import api
from tulle.xds.names import TypeUrl

pytestmark = [pytest.mark.cluster, pytest.mark.long]
SYSTEM = "tulle-system"
HERE, THERE, FRONT, OUTSIDE = "sec-here", "sec-there", "sec-front", "sec-outside"
PATIENCE_S = 180.0
POD = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: NS, labels: {app: NAME}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: app, image: tulle/test:dev, command: [sh, -c, "httpd -p 8080 -h /var/www; exec sleep 100000"]}]
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: NS}
spec: {selector: {app: NAME}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""
GATEWAY = """
apiVersion: v1
kind: Pod
metadata:
  name: NAME
  namespace: NS
  labels: {app: NAME, istio: NAME, sidecar.istio.io/inject: "true"}
  annotations: {inject.istio.io/templates: gateway}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: istio-proxy, image: auto}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: NAME, namespace: NS}
spec:
  selector: {istio: NAME}
  servers: [{port: {number: 8443, name: https, protocol: HTTPS}, hosts: ["*"], tls: {mode: SIMPLE, credentialName: front}}]
"""
SPACES = {HERE: "enabled", THERE: "enabled", FRONT: "enabled", OUTSIDE: "disabled"}
SECRET = "kubernetes://front"
REDACTED = "[redacted]"
"""Envoy's word for what it does not show."""


def until(what: str, holds: Callable[[], Any]) -> Any:
    deadline, said = time.monotonic() + PATIENCE_S, ""
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except (subprocess.CalledProcessError, StopIteration) as error:
            said = str(getattr(error, "stderr", error))
        time.sleep(1.0)
    return pytest.fail(f"{what}: not within {PATIENCE_S:.0f} s {said}")


class Mesh:
    """The cluster, and streams to its control plane."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.roots = ""

    def token(self, namespace: str, pod: str, audience: str = "tulle") -> str:
        """Of the pod's service account, bound to the pod (none: to nothing)."""
        words = ["create", "token", "default", "-n", namespace, f"--audience={audience}", "--duration=10m"]
        if pod:
            uid = self.cluster.get("pod", pod, "-n", namespace)["metadata"]["uid"]
            words += ["--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--bound-object-uid={uid}"]
        return self.cluster.kubectl(*words).strip()

    def ask(self, token: str) -> Ads:
        """A stream with this token, as from anywhere in the network of pods."""
        (pod,) = self.cluster.get("pods", "-n", SYSTEM, "-l", "app=tulled", "--field-selector=status.phase=Running")[
            "items"
        ]
        secure = grpc.ssl_channel_credentials(self.roots.encode())
        bearer = grpc.access_token_call_credentials(token)
        options = (("grpc.ssl_target_name_override", f"tulled.{SYSTEM}.svc"), ("grpc.max_receive_message_length", -1))
        place = f"{pod['status']['podIP']}:15012"
        return Ads(grpc.secure_channel(place, grpc.composite_channel_credentials(secure, bearer), options))

    def refusal(self, token: str) -> grpc.RpcError:
        """How a stream with this token ends."""
        with self.ask(token) as stream:
            stream.say(TypeUrl.CDS, node={"id": f"sidecar~10.0.0.1~one.{HERE}~{HERE}.svc.cluster.local"})
            return stream.ended()


@pytest.fixture(scope="module")
def mesh(cluster: Cluster) -> Iterator[Mesh]:
    with mesh_in(cluster, *LITTLE, "--set=controlPlane.resources.requests.cpu=10m", spaces=SPACES):
        for name, word in SPACES.items():
            labels = f"{{istio-injection: {word}}}"
            cluster.apply(f"{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {labels}}}}}")
        for name, namespace in (("one", HERE), ("two", HERE), ("one", THERE), ("one", FRONT), ("bare", OUTSIDE)):
            cluster.apply(POD.replace("NAME", name).replace("NS", namespace))
        cluster.apply(SERVICE.replace("NAME", "two").replace("NS", HERE))
        for name, namespace in (("edge", FRONT), ("edge", THERE)):
            cluster.apply(GATEWAY.replace("NAME", name).replace("NS", namespace))
        pair = key_pair("front.example.com")
        texts = {"tls.crt": pair.certificate, "tls.key": pair.key}
        data = {name: base64.b64encode(text.encode()).decode() for name, text in texts.items()}
        cluster.apply(
            f"{{apiVersion: v1, kind: Secret, metadata: {{name: front, namespace: {FRONT}}}, type: kubernetes.io/tls,"
            f" data: {{tls.crt: {data['tls.crt']}, tls.key: {data['tls.key']}}}}}"
        )
        for namespace in SPACES:
            cluster.wait("--for=condition=Ready", "pod", "--all", "-n", namespace, limit_s=PATIENCE_S)
        found = Mesh(cluster)
        found.roots = cluster.get("cm", "tulle-ca-root-cert", "-n", HERE)["data"]["root-cert.pem"]
        yield found


def identities(response: Any) -> list[str]:
    """Whose the certificates in an SDS response are: the mesh's name for them, or the common name. Each comes with its key."""
    found = []
    for resource in response.resources:
        secret = api.Secret.FromString(resource.resource.value)
        if secret.HasField("tls_certificate"):
            assert secret.tls_certificate.private_key.inline_bytes
            chain = x509.load_pem_x509_certificate(secret.tls_certificate.certificate_chain.inline_bytes)
            common = chain.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            if common:
                found.append(str(common[0].value))
                continue
            sans = chain.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            found += sans.get_values_for_type(x509.UniformResourceIdentifier)
    return found


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_the_pods_own_token_is_served(mesh: Mesh) -> None:
    """What the refusals below are to be compared with."""
    with mesh.ask(mesh.token(HERE, "one")) as stream:
        assert stream.everything({"id": f"sidecar~10.0.0.1~one.{HERE}~x"})[TypeUrl.CDS]


@pytest.mark.parametrize(
    ("namespace", "pod", "audience", "code"),
    [
        (HERE, "one", "https://kubernetes.default.svc.cluster.local", grpc.StatusCode.UNAUTHENTICATED),
        (HERE, "one", "istio-ca", grpc.StatusCode.UNAUTHENTICATED),
        (HERE, "", "tulle", grpc.StatusCode.UNAUTHENTICATED),
        (OUTSIDE, "bare", "tulle", grpc.StatusCode.UNAUTHENTICATED),
    ],
    ids=("api", "another-audience", "bound-to-nothing", "pod-without-proxy"),
)
def test_stolen_tokens_that_prove_nothing(
    mesh: Mesh, namespace: str, pod: str, audience: str, code: grpc.StatusCode
) -> None:
    assert mesh.refusal(mesh.token(namespace, pod, audience)).code() is code


def test_a_forged_token(mesh: Mesh) -> None:
    head, body, tail = mesh.token(HERE, "one").split(".")
    _, others, _ = mesh.token(THERE, "one").split(".")
    for forged in (f"{head}.{others}.{tail}", f"{head}.{body}.{tail[:-8]}AAAAAAAA", "x", "a.b.c"):
        assert mesh.refusal(forged).code() is grpc.StatusCode.UNAUTHENTICATED


def test_the_token_of_a_dead_pod(mesh: Mesh) -> None:
    """Its stream ends with the pod, and the token opens none again, though its time is not over."""
    mesh.cluster.apply(POD.replace("NAME", "mortal").replace("NS", HERE))
    mesh.cluster.wait("--for=condition=Ready", "pod/mortal", "-n", HERE, limit_s=PATIENCE_S)
    token = mesh.token(HERE, "mortal")
    with mesh.ask(token) as stream:
        assert stream.everything({"id": f"sidecar~10.0.0.1~mortal.{HERE}~x"})[TypeUrl.LDS]
        mesh.cluster.kubectl("delete", "pod", "mortal", "-n", HERE, "--grace-period=0", "--force")
        assert stream.ended().code() is grpc.StatusCode.UNAVAILABLE
    assert mesh.refusal(token).code() is grpc.StatusCode.UNAUTHENTICATED
    # One of the same name is another pod.
    mesh.cluster.apply(POD.replace("NAME", "mortal").replace("NS", HERE))
    mesh.cluster.wait("--for=condition=Ready", "pod/mortal", "-n", HERE, limit_s=PATIENCE_S)
    assert mesh.refusal(token).code() is grpc.StatusCode.UNAUTHENTICATED
    mesh.cluster.kubectl("delete", "pod", "mortal", "-n", HERE, "--wait=false")


# --- metadata ---------------------------------------------------------------------------------------------------------

CLAIMS = {
    "namespace": {"id": f"sidecar~10.0.0.1~one.{HERE}~x", "metadata": {"NAMESPACE": HERE, "SERVICE_ACCOUNT": "admin"}},
    "role": {"id": f"router~10.0.0.1~edge.{FRONT}~x", "metadata": {"NAMESPACE": FRONT, "LABELS": {"istio": "edge"}}},
    "labels": {
        "id": f"sidecar~10.0.0.1~one.{THERE}~x",
        "metadata": {"NAMESPACE": THERE, "LABELS": {"app": "two", "istio": "edge"}},
    },
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_what_a_proxy_says_of_itself_gains_nothing(mesh: Mesh, claim: dict[str, Any]) -> None:
    """Clusters, listeners and the certificate are those of the token's pod, whatever it claims."""
    token = mesh.token(THERE, "one")
    with mesh.ask(token) as honest:
        own = honest.everything({"id": f"sidecar~10.0.0.1~one.{THERE}~x"})
    with mesh.ask(token) as liar:
        assert liar.everything(claim) == own
        liar.say(TypeUrl.SDS, resource_names_subscribe=["default"])
        assert identities(liar.hear(TypeUrl.SDS)) == [f"spiffe://cluster.local/ns/{THERE}/sa/default"]


# --- keys -------------------------------------------------------------------------------------------------------------


def secrets(mesh: Mesh, namespace: str, pod: str, *wanted: str, claim: str = "") -> tuple[list[str], list[str]]:
    """Names that came with SDS, and whose the certificates are."""
    with mesh.ask(mesh.token(namespace, pod)) as stream:
        stream.everything({"id": claim or f"sidecar~10.0.0.1~{pod}.{namespace}~x"})
        came, whose = [], []
        stream.say(TypeUrl.SDS, resource_names_subscribe=list(wanted))
        while not stream.is_quiet(2.0):
            response = stream.hear()
            if response.type_url == TypeUrl.SDS.value:
                came += list(names(response.resources))
                whose += identities(response)
            stream.ack(response)
        return came, whose


def test_a_gateway_has_its_namespaces_secret(mesh: Mesh) -> None:
    came, whose = secrets(mesh, FRONT, "edge", f"kubernetes://{FRONT}/front", "default")
    assert f"kubernetes://{FRONT}/front" in came, came
    assert sorted(whose) == ["front.example.com", f"spiffe://cluster.local/ns/{FRONT}/sa/default"]


@pytest.mark.parametrize(
    ("namespace", "pod"),
    [(FRONT, "one"), (HERE, "one"), (THERE, "edge")],
    ids=("sidecar-beside-it", "sidecar-elsewhere", "gateway-elsewhere"),
)
def test_nobody_else_has_it(mesh: Mesh, namespace: str, pod: str) -> None:
    """Nor another pod's key: whatever is asked for, there is one leaf, one's own."""
    others = [f"kubernetes://{FRONT}/front", SECRET, f"spiffe://cluster.local/ns/{FRONT}/sa/default", f"edge.{FRONT}"]
    claim = f"router~10.0.0.1~edge.{FRONT}~x"
    came, whose = secrets(mesh, namespace, pod, "default", *others, claim=claim)
    assert came == ["default"], came
    assert whose == [f"spiffe://cluster.local/ns/{namespace}/sa/default"]


def test_the_workload_reads_neither_key_nor_token(mesh: Mesh) -> None:
    """In the pod itself: other users' processes and files, and ports that show what the proxy knows."""
    look = (
        "cat /proc/[0-9]*/environ /proc/[0-9]*/root/var/run/secrets/tulle.dev/token/token 2>/dev/null | grep -c tulle.dev;"
        "ls /var/run/secrets/tulle.dev /run/tulle 2>/dev/null;"
        "for port in 15000 15001 15006 15014 15020 15021 15090; do for path in /config_dump /certs?format=json /quitquitquit /logging;"
        " do curl -s -m 2 -X POST http://127.0.0.1:$port$path; curl -s -m 2 http://127.0.0.1:$port$path; done; done; true"
    )
    said = mesh.cluster.kubectl("exec", "-n", HERE, "one", "-c", "app", "--", "sh", "-c", look)
    assert "PRIVATE KEY" not in said
    assert not re.search(r"eyJ[\w-]+\.eyJ", said), "a token"
    keys = set(re.findall(r'"private_key":\s*\{\s*"inline_\w+":\s*"([^"]*)"', said))
    assert keys <= {REDACTED, base64.b64encode(REDACTED.encode()).decode()}, "a key"
    proxy = mesh.cluster.get("pod", "one", "-n", HERE)["status"]["initContainerStatuses"]
    assert all(one["restartCount"] == 0 for one in proxy), "the workload ended its proxy"


# --- webhooks away ----------------------------------------------------------------------------------------------------

WRONG = f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: wrong, namespace: {HERE}}}
spec: {{hosts: [two], http: [{{match: [{{uri: {{regex: "("}}}}], route: [{{destination: {{host: two}}}}]}}]}}
"""


def test_without_our_webhooks_the_cluster_and_the_mesh_go_on(mesh: Mesh) -> None:
    """Configuration is accepted and judged in its status later; pods outside the mesh start; the mesh serves."""
    cluster = mesh.cluster
    with pytest.raises(subprocess.CalledProcessError) as refused:
        cluster.apply(WRONG)
    assert "TUL" in refused.value.stderr
    call = ["exec", "-n", HERE, "one", "-c", "app", "--", "curl", "-sf", "-m", "5", "http://two/index.html"]
    assert cluster.kubectl(*call).strip() == "ok", "what a workload has called it goes on calling"
    cluster.kubectl("scale", "deploy/tulled", "-n", SYSTEM, "--replicas=0")
    gone = ["get", "pods", "-n", SYSTEM, "-l", "app=tulled", "-o", "name"]
    until("no control plane", lambda: not cluster.kubectl(*gone).strip())
    try:
        cluster.apply(WRONG)
        assert cluster.kubectl(*call).strip() == "ok"
        cluster.apply(POD.replace("NAME", "free").replace("NS", OUTSIDE))
        cluster.wait("--for=condition=Ready", "pod/free", "-n", OUTSIDE, limit_s=PATIENCE_S)
        with pytest.raises(subprocess.CalledProcessError) as kept_out:
            cluster.apply(POD.replace("NAME", "late").replace("NS", HERE))
        assert "injection.tulle.dev" in kept_out.value.stderr
    finally:
        cluster.kubectl("scale", "deploy/tulled", "-n", SYSTEM, "--replicas=1")
    cluster.wait("--for=condition=Available", "deploy/tulled", "-n", SYSTEM, limit_s=PATIENCE_S)

    def condition() -> Any:
        status = cluster.get("virtualservice", "wrong", "-n", HERE).get("status") or {}
        return next((one for one in status.get("conditions") or () if one["type"] == "Accepted"), None)

    found = until("a status", condition)
    assert found["status"] == "False"
    assert found["reason"].startswith("TUL"), found
    assert cluster.kubectl(*call).strip() == "ok"
    cluster.kubectl("delete", "virtualservice", "wrong", "-n", HERE)
