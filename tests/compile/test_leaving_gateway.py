"""A gateway that was told to end: its listeners say so, and its routes stay as they are."""

from compile.world import World
from tulle.xds.names import TypeUrl

OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: default}
spec: {clusterIP: 10.96.3.0, selector: {app: edge}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.3.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: default}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}
"""
POD = """
apiVersion: v1
kind: Pod
metadata:
  name: edge-1
  namespace: default
  uid: uid-1
  labels: {app: edge}
  annotations: {inject.istio.io/templates: gateway, tulle.dev/sidecar: "true"}
  DELETION
spec: {serviceAccountName: default, containers: [{name: istio-proxy}]}
status: {podIP: 10.244.1.1, conditions: [{type: Ready, status: "True"}]}
"""


def test_each_answer_of_a_leaving_gateway_ends_its_connection() -> None:
    world = World.of(f"{OBJECTS}---{POD.replace('DELETION', '')}")
    before = world.resources("default", "edge-1")
    (name,) = before[TypeUrl.LDS]
    assert "max_requests_per_connection" not in str(world.shown("default", "edge-1", TypeUrl.LDS, name))
    world.put(POD.replace("DELETION", "deletionTimestamp: '2026-01-01T00:00:00Z'"))
    shown = str(world.shown("default", "edge-1", TypeUrl.LDS, name))
    assert "'max_requests_per_connection': 1" in shown
    after = world.resources("default", "edge-1")
    assert after[TypeUrl.LDS] != before[TypeUrl.LDS]
    assert [after[url] for url in (TypeUrl.RDS, TypeUrl.VHDS)] == [before[url] for url in (TypeUrl.RDS, TypeUrl.VHDS)]
