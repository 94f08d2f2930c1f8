"""The practitioner's manifests, read verbatim where their folder stands beside the project."""

from pathlib import Path

import pytest
from dialect_worlds import intent_of, loaded

from tulle.dialects.analysis import problems_of
from tulle.dialects.istio.security import peer_authentications_in
from tulle.model.intent import Forward, MatchKind, MtlsMode, StringMatch
from tulle.model.keys import ObjectKey
from tulle.policies.connection_pool.spec import ConnectionPool
from tulle.policies.outlier_detection.spec import OutlierDetection

CASES = Path(__file__).parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not here")
PRINTED, WHOLE = CASES / "printed", CASES / "whole"

PROBLEMS = {
    "01-gateway-http": [],
    "02-gateway-https": [],
    "03-virtualservice-port": [],
    "04-virtualservice-match": [("TUL0204", 26)],
    "05-ab-initial": [("TUL0006", 25)],
    "06-ab-testing": [("TUL0006", 5), ("TUL0006", 36)],
    "07-ab-completed": [("TUL0006", 5), ("TUL0006", 22)],
    "08-peerauthentication": [("TUL0019", 9)],
    "09-circuit-breaker": [("TUL0205", 16)],
    "10-serviceentry": [],
}


def key(kind: str, namespace: str, name: str) -> ObjectKey:
    group = "security.istio.io" if kind == "PeerAuthentication" else "networking.istio.io"
    return ObjectKey("Kubernetes", group, kind, namespace, name)


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_is_said_of_the_printed_manifests(name: str) -> None:
    source, _ = loaded(PRINTED / f"{name}.yaml")
    assert [(one.problem.code, one.place.line) for one in source.problems] == PROBLEMS[name]


def test_no_manifest_is_forgotten() -> None:
    assert {path.stem for path in PRINTED.glob("*.yaml")} == set(PROBLEMS)


@pytest.mark.parametrize("name", ["05-ab-initial", "06-ab-testing", "07-ab-completed"])
def test_the_completed_manifests_are_clean(name: str) -> None:
    source, _ = loaded(WHOLE / f"{name}.yaml")
    assert source.problems == ()


def test_04_boolean() -> None:
    _, db = loaded(PRINTED / "04-virtualservice-match.yaml")
    routes = intent_of(db, key("VirtualService", "default", "myapp-vs"))
    assert routes.gateways == ("default/my-frontend-gw",)
    assert routes.http[2].matches[0].headers == (("test", StringMatch(MatchKind.EXACT, "true")),)
    assert [rule.action.targets[0].host.partition(".")[0] for rule in routes.http] == [
        "myapp1",
        "myapp2",
        "myapp2-test",
    ]


def test_06_completed() -> None:
    _, db = loaded(WHOLE / "06-ab-testing.yaml")
    meant = intent_of(db, key("VirtualService", "ns2", "myapp-vs"))
    assert meant.gateways == ("ns2/myapp-gw",)
    action = meant.http[0].action
    assert isinstance(action, Forward)
    assert [(target.subset, target.weight) for target in action.targets] == [("v1", 45), ("v2", 55)]


def test_06_as_printed_binds_to_the_mesh_only_and_the_analyzer_says_so(tmp_path: Path) -> None:
    text = (WHOLE / "05-ab-initial.yaml").read_text(encoding="utf-8")
    kept = [one for one in text.split("---\n") if "kind: Gateway" in one or "kind: Service" in one]
    (tmp_path / "initial.yaml").write_text("---\n".join(kept))
    source, db = loaded(tmp_path, PRINTED / "06-ab-testing.yaml")
    routes = key("VirtualService", "ns2", "myapp-vs")
    assert intent_of(db, routes).gateways == ("mesh",)
    (found,) = problems_of(db, routes)
    place = source.locate(found.origin)
    assert found.code == "TUL0464"
    assert "`gateways: [myapp-gw]`" in found.advice
    assert place is not None
    assert (Path(place.file).name, place.line) == ("06-ab-testing.yaml", 63)


def test_08_scopes() -> None:
    _, db = loaded(PRINTED / "08-peerauthentication.yaml")
    (mesh,) = peer_authentications_in(db, "Kubernetes", "istio-system")
    (one,) = peer_authentications_in(db, "Kubernetes", "inventory-space")
    assert (mesh.mode, mesh.selector) == (MtlsMode.STRICT, ())
    assert (one.mode, one.selector) == (MtlsMode.PERMISSIVE, (("app", "inventory-system"),))


def test_09_circuit_breaker() -> None:
    _, db = loaded(PRINTED / "09-circuit-breaker.yaml")
    rule = intent_of(db, key("DestinationRule", "payment-system", "paypal-circuit-breaker"))
    pool, detection = rule.policy.policies
    assert isinstance(pool, ConnectionPool)
    assert isinstance(detection, OutlierDetection)
    assert (pool.max_connections, pool.max_pending_requests, pool.max_requests_per_connection) == (5, 2, 2)
    assert (detection.consecutive_gateway_errors, detection.consecutive_5xx) == (2, 0)
    assert (detection.interval_ms, detection.base_ejection_ms, detection.max_ejection_percent) == (1000, 180_000, 100)
