"""Key material is in no resource and in no answer that the engine remembers: digests are."""

import base64

import yaml

from golden.pem import filled, pair
from properties.worlds import database, decoded, held, workloads
from tulle.engine import Database

OWN, FOREIGN = pair(), pair("foreign.example.com")
WORDS = [line for pem in (*OWN, *FOREIGN) for line in pem.splitlines() if not line.startswith("-")]
CONFIGURATION = """
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: istio-system}
type: kubernetes.io/tls
data: {tls.key: %s, tls.crt: %s}
stringData: {ca.crt: "${cert}"}
---
apiVersion: v1
kind: Secret
metadata: {name: foreign, namespace: other}
data: {tls.key: %s, tls.crt: %s}
---
apiVersion: v1
kind: Pod
metadata:
  {name: gw, namespace: istio-system, labels: {istio: ingressgateway},
   annotations: {sidecar.istio.io/inject: "true", inject.istio.io/templates: gateway}}
spec: {containers: [{name: app, image: x}]}
status: {phase: Running, podIP: 10.244.0.9, conditions: [{type: Ready, status: "True"}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: one, protocol: HTTPS}, hosts: [a.example.com], tls: {mode: MUTUAL, credentialName: cert}}
  - {port: {number: 443, name: two, protocol: HTTPS}, hosts: [b.example.com], tls: {mode: SIMPLE, credentialName: other/foreign}}
"""


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def remembered(db: Database) -> str:
    """Every answer and argument of every query that ran, as Python prints them."""
    return "".join(f"{args!r} {memo.value!r}" for memos in db.graph.memos.values() for args, memo in memos.items())


def test_no_secret_bytes_anywhere():
    entries = (encoded(pem) for chain, key in (OWN, FOREIGN) for pem in (key, chain))
    raws = list(yaml.safe_load_all(filled(CONFIGURATION % tuple(entries))))
    db = database(decoded(raws))
    (gateway,) = workloads(raws)
    found = held(db, gateway)
    assert found
    sent = b"".join(body for resources in found.values() for body in resources.values())
    assert b"kubernetes://istio-system/cert" in sent
    assert b"foreign" not in sent, "a gateway gets secrets of its own namespace only"
    printed = remembered(db)
    assert "SecretDigest" in printed, "the search would find nothing"
    assert len(WORDS) > 8
    whole = [encoded(pem) for pem in (*OWN, *FOREIGN)]
    for form in (*WORDS, *whole):
        assert form.encode() not in sent
        assert form not in printed
