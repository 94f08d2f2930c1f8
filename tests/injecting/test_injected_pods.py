"""Pods as they are written and as they should run. `TULLE_GOLD=1` writes golden/*/out.yaml anew."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
from injecting_goldens import CASES, INJECTED, Case, bootstrap_of, shown
from injecting_kubelet import proxy_of, validated

from tulle.dialects.kubernetes.injection import Role
from tulle.injecting.patching import patch
from tulle.xds import schema


@pytest.mark.parametrize("case", CASES, ids=str)
def test_golden(case: Case) -> None:
    text, place = shown(case.answer()), case.folder / "out.yaml"
    if os.environ.get("TULLE_GOLD"):
        place.write_text(text)
    assert text == place.read_text(), f"{place} differs; TULLE_GOLD=1 rewrites it"


def test_every_role_has_its_cases() -> None:
    assert {case.answer().role for case in CASES} == set(Role)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_asking_twice_changes_nothing(case: Case) -> None:
    first = case.answer().pod
    assert patch(first, case.answer(first).pod) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_given_pod_is_not_touched(case: Case) -> None:
    pod = case.written()["pod"]
    before = copy.deepcopy(pod)
    case.answer(pod)
    assert pod == before


@pytest.mark.parametrize("case", INJECTED, ids=str)
def test_bootstraps_fit_the_schema(case: Case) -> None:
    schema.from_dict("envoy.config.bootstrap.v3.Bootstrap", bootstrap_of(case.answer().pod))


@pytest.mark.envoy
@pytest.mark.parametrize("case", INJECTED, ids=str)
def test_envoy_takes_the_arguments(case: Case, tmp_path: Path, roots: str) -> None:
    validated(case.answer().pod, tmp_path, roots)


@pytest.mark.parametrize("case", INJECTED, ids=str)
def test_the_proxy_obeys_the_restricted_standard(case: Case) -> None:
    """Pod Security Standards, restricted: what is asked of a container."""
    security = proxy_of(case.answer().pod)["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["runAsNonRoot"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("case", INJECTED, ids=str)
def test_only_the_proxy_sees_its_token_and_its_admin_socket(case: Case) -> None:
    spec = case.answer().pod["spec"]
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        is_proxy = container["name"] == "istio-proxy"
        assert ({"tulle-token", "tulle-envoy"} <= mounted) is is_proxy, container["name"]
