"""`tulle check`: what this machine allows, what is isolated and what is not, and how running meshes are."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import click

from tulle.cli.connection import in_cluster, mesh_word
from tulle.cli.kubeconfig import reaching
from tulle.local.asking_now import ask_now
from tulle.local.edge import is_free
from tulle.local.envoys import binary
from tulle.local.fabric.support import probe_support
from tulle.local.places import Places, every_mesh, run_root, state_root, the_mesh
from tulle.local.refusals import RefusedError
from tulle.local.unfenced import LOST

Result = Literal["success", "warning", "error"]
_MARKS: Final = {"success": ("√", "green"), "warning": ("‼", "yellow"), "error": ("×", "red")}  # noqa: RUF001
_ASCII: Final = {"√": "+", "‼": "!", "×": "x"}  # noqa: RUF001
_FEW_FILES: Final = 1024
_SECONDS: Final = 5.0

ISOLATED: Final = (
    "each workload has its own network, reached only through its sidecar",
    "workloads have no capabilities and cannot see sidecars, other workloads, or the machine's processes",
    "workloads see system folders, Python and the manifests' folder, read-only; nothing else of the disk",
    "UDP (other than DNS), IPv6 and raw packets do not leave a workload",
)
NOT_ISOLATED: Final = (
    "CPU and memory are shared: `resources` of containers are not enforced",
    "all processes run on one kernel as one user: this is for development, not for hostile tenants",
    "workloads may open TCP connections to wherever this machine may, unless the mesh is REGISTRY_ONLY",
)


@dataclass(frozen=True)
class Finding:
    """One check: a sentence that states the good state, and what is wrong if it is not so."""

    description: str
    result: Result = "success"
    error: str = ""
    hint: str = ""


@dataclass
class Category:
    """Checks that belong together."""

    name: str
    checks: list[Finding] = field(default_factory=list)


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "short", "json"]), default="table")
@click.option("--pre", is_flag=True, help="Only what is needed before a mesh runs.")
@click.option("--cluster", is_flag=True, help="Of a Kubernetes cluster, not of this machine.")
@click.option("--mesh", metavar="NAME", help="Only this mesh; kube or kube:CONTEXT: of a cluster ($TULLE_MESH).")
@reaching
def check(
    *, output: str, pre: bool, cluster: bool, mesh: str | None, kubeconfig: Path | None, context: str | None
) -> int:
    """Say what this machine allows, what is isolated and what is not, and how running meshes are.

    With --cluster (and as `kubectl tulle check`): what a cluster allows, and how what is installed there is. Warnings do not change
    the exit code; an error makes it 1.
    """
    if cluster or kubeconfig or context or in_cluster(mesh):
        from tulle.cli.check_cluster import checked

        context = context or mesh_word(mesh).partition(":")[2] or None
        categories = checked(kubeconfig, context, is_before=pre)
    else:
        categories = [_machine(), _isolation(), _data_plane()]
        if not pre:
            chosen = [one for one in every_mesh() if mesh in (None, one.name)]
            categories += [_mesh(one) for one in (chosen if chosen or not mesh else [the_mesh(mesh)])]
    is_well = all(one.result != "error" for category in categories for one in category.checks)
    if output == "json":
        click.echo(json.dumps(_as_json(categories, is_well=is_well), indent=2, ensure_ascii=False))
    else:
        _print(categories, only_failures=output == "short")
        click.echo(f"Status check results are {_mark('success' if is_well else 'error')}")
    return 0 if is_well else 1


def _as_json(categories: list[Category], *, is_well: bool) -> dict[str, Any]:
    return {
        "success": is_well,
        "categories": [
            {
                "categoryName": category.name,
                "checks": [
                    {"description": one.description, "result": one.result, "error": one.error, "hint": one.hint}
                    for one in category.checks
                ],
            }
            for category in categories
        ],
    }


def _mark(result: Result) -> str:
    mark, colour = _MARKS[result]
    encoding = (sys.stdout.encoding or "ascii").lower()
    return click.style(mark if "utf" in encoding else _ASCII[mark], fg=colour)


def _print(categories: list[Category], *, only_failures: bool) -> None:
    for category in categories:
        shown = [one for one in category.checks if not only_failures or one.result != "success"]
        if not shown:
            continue
        click.echo(category.name)
        click.echo("-" * len(category.name))
        for one in shown:
            click.echo(f"{_mark(one.result)} {one.description}")
            for words in (one.error, one.hint):
                if words:
                    click.echo(f"    {words}")
        click.echo()


def _tried(description: str, attempt: Callable[[], str], *, result: Result = "error", hint: str = "") -> Finding:
    """A check that says what is wrong, or nothing."""
    try:
        error = attempt()
    except (OSError, RefusedError, subprocess.SubprocessError) as caught:
        error = str(caught)
    return Finding(description, result if error else "success", error, hint if error else "")


def _machine() -> Category:
    category = Category("machine")
    category.checks = [
        _tried("the system is Linux", lambda: "" if sys.platform == "linux" else f"this is {platform.system()}"),
        _tried(
            "Python is 3.11 or newer",
            lambda: "" if sys.version_info >= (3, 11) else f"this is {platform.python_version()}",
        ),
        _tried(f"{run_root()} and {state_root()} can be written", _writable),
        _tried("enough files may be open at once", _files, result="warning", hint="raise `ulimit -Hn`"),
        _tried("ports 8080 and 8443 are free", _ports, result="warning", hint="the next free ones are used"),
    ]
    return category


def _writable() -> str:
    for root in (run_root(), state_root()):
        existing = next(path for path in (root, *root.parents) if path.exists())
        if not os.access(existing, os.W_OK):
            return f"{existing} is closed to this user"
    return ""


def _files() -> str:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return "" if hard > _FEW_FILES or hard < 0 else f"{hard} at most"


def _ports() -> str:
    taken = [str(port) for port in (8080, 8443) if not is_free(port, "127.0.0.1")]
    return f"taken: {', '.join(taken)}" if taken else ""


def _isolation() -> Category:
    category = Category("isolation")
    support = asyncio.run(probe_support())
    for one in support.checks:
        failed: Result = "error" if one.required else "warning"
        category.checks.append(Finding(f"{one.name} can be had", "success" if one.works else failed, one.reason))
    if support.has_fabric:
        category.checks += [Finding(words) for words in ISOLATED]
        category.checks += [Finding(words, "warning", "not isolated") for words in NOT_ISOLATED]
    else:
        category.checks += [Finding(words, "warning", "with --isolation none") for words in LOST]
    return category


def _data_plane() -> Category:
    category = Category("data plane")
    category.checks = [
        _tried("an Envoy is installed", lambda: "" if binary().exists() else "the file is gone"),
        _tried("Envoy runs on this machine", _envoy_runs, hint="Envoy needs glibc 2.31 or newer"),
        _tried("Envoy's schema is part of this installation", _schema),
    ]
    return category


def _envoy_runs() -> str:
    asked = subprocess.run([str(binary()), "--version"], capture_output=True, timeout=_SECONDS, check=False)
    return "" if asked.returncode == 0 else asked.stderr.decode(errors="replace").strip() or f"{asked.returncode}"


def _schema() -> str:
    from importlib.resources import files

    found = files("tulle.xds").joinpath("data", "envoy.fds.xz").is_file()
    return "" if found else "run: python -m tulle.xds.extract"


def _mesh(mesh: Places) -> Category:
    category = Category(f"mesh {mesh.name}")
    if not mesh.is_running:
        category.checks = [
            Finding(
                "its supervisor runs", "warning", "it was killed", f"`tulle down --mesh {mesh.name}` removes its files"
            )
        ]
        return category
    category.checks = list(_running(mesh))
    return category


def _running(mesh: Places) -> Iterator[Finding]:
    try:
        _status, about = ask_now(mesh.supervisor_socket, "GET", "/v1/mesh", timeout=_SECONDS)
    except OSError as error:
        yield Finding("its supervisor answers", "error", str(error))
        return
    yield Finding("its supervisor answers")
    if about.get("isolation") == "none":
        yield Finding("its workloads are isolated", "warning", "it was started with --isolation none")
    ready, total = about["ready"], about["total"]
    word: Result = "success" if ready == total else "warning"
    yield Finding("every pod is ready", word, "" if ready == total else f"{ready} of {total}; see `tulle ps`")
    for one in about["problems"]:
        if one["severity"] != "info":
            place = f"{one['file']}:{one['line']}: " if one["file"] else ""
            level: Result = "error" if one["severity"] == "error" else "warning"
            yield Finding(
                f"{one['kind']} {one['name']} can be run", level, f"{place}{one['code']} {one['text']}", one["advice"]
            )
    yield from _control_plane(mesh)


def _control_plane(mesh: Places) -> Iterator[Finding]:
    try:
        _status, proxies = ask_now(mesh.admin_socket, "GET", "/v1/proxies", timeout=_SECONDS)
        _status, problems = ask_now(mesh.admin_socket, "GET", "/v1/problems", timeout=_SECONDS)
    except OSError as error:
        log = mesh.run / "logs" / "control-plane.log"
        yield Finding("its control plane answers", "error", str(error), f"see {log}; it is restarted when it dies")
        return
    yield Finding("its control plane answers")
    errors = [one for one in (problems or {}).get("problems", ()) if one.get("severity") == "error"]
    yield Finding(
        "its configuration is accepted",
        "error" if errors else "success",
        "; ".join(f"{one.get('code')} {one.get('kind')}/{one.get('name')}: {one.get('text')}" for one in errors[:5]),
        "`tulle analyze` says more" if errors else "",
    )
    held = (proxies or {}).get("proxies", ())
    yield Finding("its proxies are connected", "success" if held else "warning", "" if held else "none is connected")
