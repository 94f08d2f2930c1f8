"""What is claimed of the Gateway API: of features the suite knows, with a reason where nothing is claimed, and as the last reports show."""

import yaml
from conformance_page import PAGE, REPORTS, page

from tulle.dialects.gateway_api.features import FEATURES, MESH_FEATURES, NOT_CLAIMED

PROFILES = [
    profile
    for path in sorted(REPORTS.glob("*.yaml"))
    for profile in yaml.safe_load(path.read_text()).get("profiles") or ()
]


def test_the_page_is_that_of_the_reports() -> None:
    assert PAGE.read_text() == page(REPORTS)


def test_nothing_is_claimed_and_excused_at_once() -> None:
    assert not set(NOT_CLAIMED) & {*FEATURES, *MESH_FEATURES}
    assert list(FEATURES) == sorted(set(FEATURES))
    assert len(FEATURES) <= 64, "the API takes no more in a class's status"


def test_the_reports_are_of_what_is_claimed() -> None:
    for profile in PROFILES:
        extended = profile.get("extended") or {}
        claimed = {*FEATURES, *MESH_FEATURES}
        assert set(extended.get("supportedFeatures") or ()) <= claimed, profile["name"]
        assert set(extended.get("unsupportedFeatures") or ()) <= set(NOT_CLAIMED), profile["name"]


def test_all_of_core_passed_and_all_that_is_claimed() -> None:
    assert {one["name"] for one in PROFILES} >= {
        "GATEWAY-HTTP",
        "GATEWAY-GRPC",
        "GATEWAY-TLS",
        "MESH-HTTP",
        "MESH-GRPC",
    }
    for profile in PROFILES:
        assert profile["core"]["result"] == "success", profile["name"]
        extended = profile.get("extended") or {}
        assert extended.get("result", "success") == "success", profile["name"]
