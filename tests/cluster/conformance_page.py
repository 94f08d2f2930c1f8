"""docs/conformance/README.md from the suite's reports beside it: counts per profile, what is claimed, what is not and why."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tulle.dialects.gateway_api.features import NOT_CLAIMED, TESTED_BY_US

REPORTS = Path(__file__).resolve().parents[2] / "docs" / "conformance"
PAGE = REPORTS / "README.md"
_ORDER = (
    "GATEWAY-HTTP",
    "GATEWAY-GRPC",
    "GATEWAY-TLS",
    "GATEWAY-TCP",
    "GATEWAY-UDP",
    "MESH-HTTP",
    "MESH-GRPC",
)
Report = dict[str, Any]


def write() -> None:
    """The page anew. Raises KeyError where a feature that is not claimed has no reason."""
    PAGE.write_text(page(REPORTS))


def page(folder: Path) -> str:
    """The page of the reports in a folder, as Markdown."""
    files = sorted(folder.glob("*.yaml"))
    reports = {path.name: yaml.safe_load(path.read_text()) for path in files}
    return "\n".join((*_head(reports), *_counts(reports.values()), *_features(reports.values()), ""))


def _head(reports: dict[str, Report]) -> Iterator[str]:
    yield "# Conformance with the Gateway API"
    yield ""
    yield "Written by `make conformance`, which runs the official suite in a real Kubernetes of its own (`tests/cluster`)."
    yield "Nothing is skipped or exempted: every test of a Core feature runs, and every test of an Extended feature that is claimed."
    yield f"Claimed, and tested by nothing in the suite: {', '.join(TESTED_BY_US)} (`tests/policies/test_gateway_retries_in_envoy.py`)."
    yield ""
    for name, report in sorted(reports.items()):
        found = report["implementation"]["version"]
        api = f"{report['gatewayAPIVersion']} ({report['gatewayAPIChannel']} channel)"
        yield f"- [{name}]({name}): {report['date'][:10]}, commit {found}, Gateway API {api}"


def _counts(reports: Iterable[Report]) -> Iterator[str]:
    yield ""
    yield "## Counts"
    yield ""
    yield "| profile | Core passed | failed | skipped | Extended passed | failed | skipped |"
    yield "|---|---|---|---|---|---|---|"
    for profile in _profiles(reports):
        numbers = [
            str((profile.get(level) or {}).get("statistics", {}).get(word, 0))
            for level in ("core", "extended")
            for word in ("Passed", "Failed", "Skipped")
        ]
        yield f"| {profile['name']} | {' | '.join(numbers)} |"
    failed = {one for profile in _profiles(reports) for one in _of(profile, "failedTests")}
    yield ""
    yield f"Failed: {', '.join(sorted(failed))}." if failed else "Failed: none."


def _features(reports: Iterable[Report]) -> Iterator[str]:
    profiles = list(_profiles(reports))
    yield ""
    yield "## Extended features that are claimed"
    yield ""
    for profile in profiles:
        claimed = (profile.get("extended") or {}).get("supportedFeatures") or ()
        yield f"- **{profile['name']}** ({len(claimed)}): {', '.join(claimed) or 'none'}"
    yield ""
    yield "## Features that are not claimed"
    yield ""
    yield "| feature | why |"
    yield "|---|---|"
    for name in sorted(
        {one for profile in profiles for one in _of(profile, "unsupportedFeatures")} | NOT_CLAIMED.keys()
    ):
        yield f"| {name} | {NOT_CLAIMED[name]} |"


def _profiles(reports: Iterable[Report]) -> list[dict[str, Any]]:
    found = [profile for report in reports for profile in report.get("profiles") or ()]
    return sorted(found, key=lambda one: _ORDER.index(one["name"]))


def _of(profile: dict[str, Any], what: str) -> Iterator[str]:
    for level in ("core", "extended"):
        yield from (profile.get(level) or {}).get(what) or ()


def counts(report: Report) -> Iterator[str]:
    """The same for a terminal, a line each."""
    for profile in _profiles([report]):
        for level in ("core", "extended"):
            found = profile.get(level) or {}
            numbers = "  ".join(f"{word} {number}" for word, number in (found.get("statistics") or {}).items())
            yield f"{profile['name']:<13} {level:<9} {numbers}"
            yield from (f"   failed: {one}" for one in found.get("failedTests") or ())
