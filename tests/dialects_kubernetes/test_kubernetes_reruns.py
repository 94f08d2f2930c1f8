"""What an edit reruns: a pod costs the services that select it, and nothing else of the namespace."""

from kubernetes_worlds import C, pod, put, service, world

from tulle.dialects.kubernetes import registry
from tulle.model.keys import ServiceKey

MANY = 30


def big_world():
    texts = [service(f"s{n}", f"selector: {{app: a{n}}}, ports: [{{port: 80, targetPort: 8080}}]") for n in range(MANY)]
    texts += [pod(f"p{n}", f"10.1.0.{n}", labels=f"app: a{n}, tier: web") for n in range(MANY)]
    texts.append(service("all", "selector: {tier: web}, ports: [{port: 80, targetPort: 8080}]"))
    db = world(*texts)
    ask(db)
    return db


def ask(db):
    hosts = [f"s{n}" for n in range(MANY)] + ["all"]
    return [registry.endpoints(db, ServiceKey(C, "shop", f"{host}.shop.svc.cluster.local"), 80) for host in hosts]


def ran(db, text, question=ask):
    with db.counting() as runs:  # gates answer within the edit
        put(db, text)
        question(db)
    return sorted((name, *(str(part) for part in args[1:])) for name, args in runs.calls), [
        name for name, _ in runs.calls
    ]


def test_a_pod_becoming_unready_reruns_the_endpoints_of_its_services_only():
    db = big_world()
    _, names = ran(db, pod("p3", "10.1.0.3", labels="app: a3, tier: web", ready=False))
    assert sorted(names) == ["core_endpoints"] * 2 + ["endpoints"] * 2 + ["listed_pod"]


def test_a_pod_becoming_ready_again_reruns_the_same():
    db = big_world()
    ran(db, pod("p3", "10.1.0.3", labels="app: a3, tier: web", ready=False))
    _, names = ran(db, pod("p3", "10.1.0.3", labels="app: a3, tier: web"))
    assert sorted(set(names)) == ["core_endpoints", "endpoints", "listed_pod", "pod_workload"]
    assert names.count("endpoints") == 2


def test_a_new_pod_reruns_the_selections_of_its_labels():
    db = big_world()
    _, names = ran(db, pod("p99", "10.1.0.99", labels="app: a3, tier: web"))
    assert names.count("pods_selected") == 2
    assert names.count("endpoints") == 2


def test_a_readiness_change_reruns_no_selection_and_no_service():
    db = big_world()

    def question(db):
        registry.workloads_selected(db, C, "shop", (("tier", "web"),))
        registry.services_in(db, C, "shop")

    question(db)
    _, names = ran(db, pod("p3", "10.1.0.3", labels="app: a3, tier: web", ready=False), question)
    assert names == []


def test_a_service_s_edit_reruns_that_service_only():
    db = big_world()

    def question(db):
        registry.services_in(db, C, "shop")

    question(db)
    _, names = ran(
        db, service("s3", "clusterIP: 10.0.0.3, selector: {app: a3}, ports: [{port: 80, targetPort: 8080}]"), question
    )
    assert names.count("service") == 1
    assert names.count("core_service") == 1
