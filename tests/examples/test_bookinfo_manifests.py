"""The manifests agree with themselves and with the code they start."""

import importlib
import importlib.resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from tulle.examples.bookinfo import rpc

HOME = Path(str(importlib.resources.files("tulle.examples.bookinfo")))
FILES = sorted(HOME.glob("*.yaml"))
EDITS = sorted((HOME / "edits").glob("*.yaml"))

Object = dict[str, Any]


def objects(*files: Path) -> list[Object]:
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def named(kind: str, *files: Path) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in objects(*files or FILES) if item["kind"] == kind}


def key(item: Object) -> tuple[str, str, str, str]:
    return item["apiVersion"], item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def test_the_files_are_there_and_no_object_twice() -> None:
    assert [file.name for file in FILES] == [
        "bookinfo.yaml",
        "clients.yaml",
        "gateway.yaml",
        "routing.yaml",
        "security.yaml",
    ]
    keys = [key(item) for item in objects(*FILES)]
    assert len(keys) == len(set(keys))
    assert {version for version, *_ in keys} == {"v1", "apps/v1", "networking.istio.io/v1", "security.istio.io/v1"}


def test_every_deployment_runs_code_that_exists_under_an_account_that_exists() -> None:
    accounts = {(item["metadata"]["namespace"], name) for name, item in named("ServiceAccount").items()}
    deployments = named("Deployment")
    assert len(deployments) == 9
    for name, deployment in deployments.items():
        template = deployment["spec"]["template"]
        assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert (deployment["metadata"]["namespace"], template["spec"]["serviceAccountName"]) in accounts
        (container,) = template["spec"]["containers"]
        if name == "istio-ingressgateway":
            assert (container["name"], container["image"]) == ("istio-proxy", "auto")
            continue
        python, dash_m, module = container["command"]
        assert (python, dash_m) == ("python", "-m")
        assert callable(importlib.import_module(module).main)
        version = next(entry["value"] for entry in container["env"] if entry["name"] == "VERSION")
        assert version == template["metadata"]["labels"]["version"]


def test_every_service_selects_pods_that_listen() -> None:
    pods = [item["spec"]["template"] for item in named("Deployment").values()]
    for service in named("Service").values():
        selected = [pod for pod in pods if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
        assert selected
        for pod in selected:
            listening = {port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= listening


def test_routes_lead_to_subsets_of_pods_and_shares_make_a_hundred() -> None:
    versions = {item["spec"]["template"]["metadata"]["labels"].get("version") for item in named("Deployment").values()}
    subsets = {
        subset["name"]: subset["labels"]["version"] for subset in named("DestinationRule")["reviews"]["spec"]["subsets"]
    }
    assert set(subsets.values()) <= versions
    services = named("Service")
    for item in [*named("VirtualService").values(), *named("VirtualService", *EDITS).values()]:
        for route in item["spec"]["http"]:
            destinations = [part["destination"] for part in route["route"]]
            assert all(destination["host"] in services for destination in destinations)
            assert all(destination.get("subset", "v1") in subsets for destination in destinations)
            assert len(destinations) == 1 or sum(part["weight"] for part in route["route"]) == 100


def test_permissions_name_accounts_that_exist_and_never_the_stranger() -> None:
    principals = {
        f"cluster.local/ns/{item['metadata']['namespace']}/sa/{name}" for name, item in named("ServiceAccount").items()
    }
    policies = named("AuthorizationPolicy")
    assert policies["allow-nothing"]["spec"] == {}
    allowed = {
        principal
        for policy in policies.values()
        for rule in policy["spec"].get("rules", [])
        for source in rule["from"]
        for principal in source["source"]["principals"]
    }
    assert allowed < principals
    assert not any("stranger" in principal for principal in allowed)
    (grpc_rule, _) = policies["ratings-viewer"]["spec"]["rules"]
    assert rpc.GET.startswith(grpc_rule["to"][0]["operation"]["paths"][0].removesuffix("*"))


@pytest.mark.parametrize("edit", EDITS, ids=lambda file: file.stem)
def test_an_edit_replaces_one_object_or_adds_one(edit: Path) -> None:
    (item,) = objects(edit)
    before = {key(old): old for old in objects(*FILES)}
    assert item != before.get(key(item))
    assert (key(item) in before) is (item["kind"] == "VirtualService")


def test_the_readme_names_every_file() -> None:
    text = (HOME / "README.md").read_text()
    for file in [*FILES, *EDITS]:
        assert file.name in text, file.name
