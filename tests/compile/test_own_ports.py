"""Services at port numbers at which every sidecar has a listener of its bootstrap."""

import pytest

from compile.world import CLUSTER, World, mesh_settings
from tulle.compile.ondemand import resources_held
from tulle.compile.views import view_of
from tulle.model.keys import WorkloadKey
from tulle.xds.names import TypeUrl

GATEWAY = """
apiVersion: v1
kind: Service
metadata: {name: gateway, namespace: shop}
spec:
  clusterIP: 10.96.0.7
  ports: [{port: 15021, name: status-port}, {port: 15090, name: http-metrics}, {port: 15020, name: https-x}, {port: 80, name: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, annotations: {sidecar.istio.io/status: "{}"}}
spec: {containers: [{name: app, image: app}, {name: istio-proxy, image: proxy}]}
status: {podIP: 10.1.0.1, phase: Running, conditions: [{type: Ready, status: "True"}]}
"""


@pytest.mark.parametrize("discovery", ["full", "on-demand"])
def test_no_listener_takes_such_a_port_at_every_address(discovery: str) -> None:
    db = World.of(GATEWAY, mesh=mesh_settings(discovery=discovery)).db
    view = view_of(db, WorkloadKey(CLUSTER, "shop", "web"))
    assert view is not None
    listeners = resources_held(db, view, frozenset())[TypeUrl.LDS]
    assert "virtualOutbound" in listeners
    assert not [name for name in listeners if name.startswith("0.0.0.0_150")], "Envoy would refuse it"
