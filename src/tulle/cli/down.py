"""`tulle down`: stop a mesh and remove every trace of its run."""

from __future__ import annotations

import time
from typing import Final

import click

from tulle.cli.connection import only_here
from tulle.local.asking_now import ask_now
from tulle.local.places import Places, every_mesh, places_of, the_mesh
from tulle.local.refusals import RefusedError, refusal

_PATIENCE: Final = 20.0


@click.command()
@click.option("--mesh", "--name", "name", help="The mesh to stop; needed when several run.")
@click.option("--all", "everything", is_flag=True, help="Stop every mesh of this user.")
def down(name: str | None, everything: bool) -> None:
    """Stop a mesh: every process, socket, network and file of its run is gone afterwards; its state is kept."""
    only_here(name, "down", "`tulle uninstall` removes an installation from a cluster.")
    if everything:
        meshes = list(every_mesh())
    elif name and places_of(name).run.exists():
        meshes = [places_of(name)]
    else:
        stale = [mesh for mesh in every_mesh() if not mesh.is_running]
        meshes = stale if not name and len(stale) == 1 and not _some_run() else [the_mesh(name)]
    for mesh in meshes:
        stop(mesh)
        click.echo(f"{mesh.name} is down")
    if not meshes:
        click.echo("no mesh runs here")


def _some_run() -> bool:
    return any(mesh.is_running for mesh in every_mesh())


def stop(mesh: Places) -> None:
    """Stop one mesh and wait until nothing is left of it; a mesh that was killed leaves files, which go."""
    if mesh.is_running:
        try:
            ask_now(mesh.supervisor_socket, "POST", "/v1/down")
        except OSError as error:
            raise RefusedError(
                refusal("TUL0920", mesh=mesh.name, reason=error.strerror or error, log=mesh.state / "up.log")
            ) from error
    deadline = time.monotonic() + _PATIENCE
    while mesh.is_running:
        if time.monotonic() > deadline:
            raise RefusedError(refusal("TUL0920", mesh=mesh.name, reason="it does not end", log=mesh.state / "up.log"))
        time.sleep(0.02)
    mesh.remove()
