"""`tulle restart`: new pods for a workload, or a new sidecar for a pod, without losing a request."""

from __future__ import annotations

import click

from tulle.cli.connection import mesh_named, only_here
from tulle.cli.ps import asked
from tulle.local.places import the_mesh


@click.group()
def restart() -> None:
    """Restart a workload's pods, or replace sidecars, one after the other and without losing a request."""


@restart.command()
@click.argument("what")
@mesh_named("--mesh", "--name", "name")
@click.option("-n", "--namespace", default="")
def workload(what: str, name: str | None, namespace: str) -> None:
    """Replace the pods of a workload, as after a change of its template."""
    _restart("workload", what, name, namespace)


@restart.command()
@click.argument("what")
@mesh_named("--mesh", "--name", "name")
@click.option("-n", "--namespace", default="")
def sidecar(what: str, name: str | None, namespace: str) -> None:
    """Put a new sidecar beside the old one of each pod, let the old one finish its connections, and end it."""
    _restart("sidecar", what, name, namespace)


def _restart(kind: str, what: str, name: str | None, namespace: str) -> None:
    again = f"`kubectl rollout restart deploy/{what.rpartition('/')[2]} -n {namespace or 'NAMESPACE'}`"
    note = " A sidecar is part of its pod there." if kind == "sidecar" else ""
    only_here(name, f"restart {kind}", f"{again} replaces the pods one after the other, each with a new sidecar.{note}")
    given = {"kind": kind, "name": what, "namespace": namespace}
    for restarted in asked(the_mesh(name), "POST", "/v1/restart", given, 120.0)["restarted"]:
        click.echo(f"{restarted}: new {kind}")
