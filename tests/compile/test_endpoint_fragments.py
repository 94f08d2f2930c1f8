"""Fragments are glued by hand; they are what the schema would have written."""

from hypothesis import given
from hypothesis import strategies as st

from tulle.compile.endpoints import fragment
from tulle.model.intent import Endpoint
from tulle.model.keys import WorkloadKey
from tulle.xds import api
from tulle.xds.schema import struct, to_bytes

words = st.text(max_size=200)
keys = st.none() | st.builds(WorkloadKey, words, words, words)
labels = st.dictionaries(st.sampled_from(("app", "version", "other")), words).map(lambda found: tuple(found.items()))
endpoints = st.builds(
    Endpoint,
    st.ip_addresses().map(str),
    st.integers(1, 65535),
    keys,
    labels,
    st.booleans(),
    st.booleans(),
    words,
    words,
    words,
    words,
)


@given(endpoints, st.integers(0, 2**31))
def test_as_the_schema_writes_it(endpoint, weight):
    endpoint = Endpoint(**{name: getattr(endpoint, name) for name in endpoint.__struct_fields__} | {"weight": weight})
    owner = endpoint.workload
    said = {
        "workload": endpoint.owner,
        "namespace": owner.namespace if owner else "",
        "canonical": endpoint.canonical_service,
        "revision": endpoint.canonical_revision,
        "app": dict(endpoint.labels).get("app", ""),
        "version": dict(endpoint.labels).get("version", ""),
        "cluster": owner.cluster if owner else "",
    }
    order = ("workload", "namespace", "app", "version", "canonical", "revision", "cluster")
    fields = {"tulle": struct({"peer": ";".join(said[name] or "unknown" for name in order)})}
    if endpoint.has_sidecar:
        fields["envoy.transport_socket_match"] = struct({"tlsMode": "istio"})
    socket = api.SocketAddress(address=endpoint.address, port_value=endpoint.port)
    message = api.LbEndpoint(
        endpoint=api.Endpoint(address=api.Address(socket_address=socket)),
        metadata=api.Metadata(filter_metadata=fields),
        load_balancing_weight=api.UInt32Value(value=max(weight, 1)),
    )
    group = api.LocalityLbEndpoints(lb_endpoints=[message])
    assert fragment(endpoint) == to_bytes(group)
