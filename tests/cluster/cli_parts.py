"""A small mesh for the command line: a server that denies POST, a client that calls it all the time, a gateway with a key, a bare pod."""

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubelab.cluster import Cluster

SPACE = "shop"
HOST = "web.example"
SHOP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: tulle/test:dev
        command: [sh, -c, "echo serving; exec httpd -f -v -p 8080 -h /var/www"]
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: shop}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: client
        image: tulle/test:dev
        command: [sh, -c, "while :; do curl -s -m 5 -o /dev/null -w 'status %{http_code}\\\\n' http://web/index.html; sleep 0.2; done"]
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop, labels: {app: bare}, annotations: {sidecar.istio.io/inject: "false"}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: caller, image: "tulle/test:dev", command: [sleep, "100000"]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, namespace: shop}
spec:
  selector: {matchLabels: {app: edge}}
  template:
    metadata:
      labels: {app: edge, istio: edge, sidecar.istio.io/inject: "true"}
      annotations: {inject.istio.io/templates: gateway}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: istio-proxy, image: auto}]
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {selector: {app: edge}, ports: [{name: https, port: 443, targetPort: 8443}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {istio: edge}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: edge-cert}
    hosts: ["web.example"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: shop}
spec:
  hosts: [web.example]
  gateways: [edge]
  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  action: ALLOW
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web, port: {number: 80}}}], timeout: TIMEOUT}]
"""
USERS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: viewer, namespace: shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: tulle-test-viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: viewer, namespace: shop}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: nobody, namespace: shop}
"""


def key_and_certificate() -> tuple[str, str]:
    """Of the gateway, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - timedelta(minutes=5), now + timedelta(1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return private.decode(), made.public_bytes(serialization.Encoding.PEM).decode()


def secret(key: str, certificate: str) -> str:
    """The gateway's, as an object."""
    data = {"tls.key": key, "tls.crt": certificate}
    made = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls"}
    made |= {"metadata": {"name": "edge-cert", "namespace": SPACE}}  # type: ignore[dict-item]
    coded = {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}
    return json.dumps({**made, "data": coded})


def kubeconfig_of_users(cluster: Cluster, path: Path) -> Path:
    """The administrator's with more contexts: `viewer` (may read), `nobody` (may nothing), `away` (nobody there)."""
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    admin, place = config["users"][0]["name"], config["clusters"][0]["name"]
    for who in ("viewer", "nobody"):
        token = cluster.kubectl("create", "token", who, "-n", SPACE).strip()
        config["users"].append({"name": who, "user": {"token": token}})
        config["contexts"].append({"name": who, "context": {"cluster": place, "user": who, "namespace": SPACE}})
    config["clusters"].append({"name": "away", "cluster": {"server": "https://127.0.0.1:9"}})
    config["contexts"].append({"name": "away", "context": {"cluster": "away", "user": admin}})
    config["contexts"][0]["context"]["namespace"] = SPACE
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def process(**wanted: str) -> int:
    """Pid, on this machine, of the process whose environment has these."""
    parts = [f"{name}={value}\0".encode() for name, value in wanted.items()]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (entry / "environ").read_bytes()
            if all(part in environment for part in parts):
                found.append(int(entry.name))
    return min(found) if found else pytest.fail(f"no process has {wanted}")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        assert _state(pid) in "Tt", "it was not stopped"
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> str:
    for _ in range(200):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state in "Tt":
            break
    return state


def run(
    words: list[str], environment: Mapping[str, str], *, limit_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """A command that may end with any code."""
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=limit_s, env=dict(environment))


def walked(value: Any, name: str) -> Iterator[Any]:
    """Every value of a field, wherever in a document."""
    if isinstance(value, dict):
        for key, inside in value.items():
            if key == name:
                yield inside
            yield from walked(inside, name)
    elif isinstance(value, list):
        for inside in value:
            yield from walked(inside, name)
