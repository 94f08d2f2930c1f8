"""Whatever is edited in whatever order, the answers are those of a database that only ever saw the end."""

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_worlds import C, as_object, pod, service

from tulle.dialects.inputs import objects
from tulle.dialects.kubernetes import endpoints, namespaces, services_in, workloads_in, workloads_selected
from tulle.engine import Database

LABELS = ("app: web", "app: web, tier: front", "app: other")
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {ns}}}
spec: {{hosts: [{host}], ports: [{{number: 80, name: http}}], {rest}}}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: s1}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [10.1.0.{n}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: p{n}}}}}]
"""
NAMESPACE = "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{istio-injection: {word}}}}}}}"

few = st.integers(1, 3)
places = st.sampled_from(("shop", "far"))
pods = st.builds(
    lambda n, ready, labels, ns: pod(f"p{n}", f"10.1.0.{n}", ready=ready, labels=labels, ns=ns),
    few,
    st.booleans(),
    st.sampled_from(LABELS),
    places,
)
services = st.builds(
    lambda n, selector, target, ns: service(
        f"s{n}", f"selector: {{{selector}}}, ports: [{{port: 80, name: http, targetPort: {target}}}]", ns=ns
    ),
    few,
    st.sampled_from(LABELS),
    st.sampled_from(("http", "8080", "absent")),
    places,
)
aliases = st.builds(
    lambda n, to: service(f"s{n}", f"type: ExternalName, externalName: {to}"),
    few,
    st.sampled_from(("s1.shop.svc.cluster.local", "s2.shop.svc.cluster.local", "x1.example", "out.example")),
)
entries = st.builds(
    lambda n, host, rest, ns: ENTRY.format(name=f"e{n}", host=f"x{host}.example", rest=rest, ns=ns),
    few,
    few,
    st.sampled_from(
        ("resolution: DNS", "resolution: NONE", "resolution: STATIC, workloadSelector: {labels: {app: web}}")
    ),
    places,
)
slices = st.builds(lambda name, n: SLICE.format(name=f"sl{name}", n=n), few, few)
spaces = st.builds(lambda word: NAMESPACE.format(word=word), st.sampled_from(("enabled", "disabled")))
edits = st.tuples(st.one_of(pods, services, aliases, entries, slices, spaces), st.booleans())


def apply(db, edit):
    text, is_delete = edit
    found = as_object(yaml.safe_load(text))
    with db.edit() as changes:
        if is_delete:
            changes.delete(objects, found.key)
        else:
            changes.set(objects, found.key, found)


def everything(db):
    answers = []
    for ns in namespaces(db, C):
        found = services_in(db, C, ns)
        answers.append((ns, found, workloads_in(db, C, ns), workloads_selected(db, C, ns, (("app", "web"),))))
        answers += [endpoints(db, one.key, port.number) for one in found for port in one.ports]
    return answers


@given(st.lists(edits, min_size=1, max_size=25))
@settings(max_examples=150, deadline=None)
def test_incremental_is_from_scratch(sequence):
    db = Database(check_purity=True)
    for edit in sequence:
        apply(db, edit)
        everything(db)
    fresh = Database()
    for value in objects.snapshot(db).values():
        with fresh.edit() as changes:
            changes.set(objects, value.key, value)
    assert everything(db) == everything(fresh)
