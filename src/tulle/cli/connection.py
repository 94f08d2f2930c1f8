"""The way to a running mesh: its control plane's admin API over a Unix socket, and the admin pipes of its sidecars.

Knows paths of `local.places` and HTTP; what is asked and answered is the commands' business.
"""

import json
import os
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tulle.cli.output import Exit, refuse
from tulle.local.places import MESH_VARIABLE, Places, the_mesh
from tulle.telemetry import pipe

if TYPE_CHECKING:
    from tulle.cli.cluster_connection import ClusterConnection

TIMEOUT_S = 10.0
F = TypeVar("F", bound=Callable[..., Any])


def mesh_option(function: F) -> F:
    """`--mesh`."""
    return click.option(
        "--mesh",
        metavar="NAME",
        help="Which mesh, where several run; kube or kube:CONTEXT: in a cluster ($TULLE_MESH).",
    )(function)


def namespace_options(function: F) -> F:
    """`-n` and `-A`."""
    named = click.option("-n", "--namespace", default=None, metavar="NAME", help="Namespace (default: default).")
    every = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Every namespace.")
    return named(every(function))


class Connection:
    """One running mesh. Every failure to reach it ends the command with code 69 (or 75: too late) and what to do."""

    def __init__(self, places: Places) -> None:
        self.places = places

    @property
    def cluster(self) -> "ClusterConnection | None":
        """Itself, if the mesh is in a cluster."""
        return None

    def get(self, path: str, timeout_s: float = TIMEOUT_S, **query: str | None) -> Any:
        """The JSON answer of the control plane; None for 404."""
        asked = {name: value for name, value in query.items() if value}
        return self._read(self._ask("GET", path, timeout_s, query=asked))

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> Any:
        """The JSON answer of the control plane; None for 404."""
        return self._read(self._ask("POST", path, timeout_s, body=json.dumps(dict(body)).encode()))

    def _ask(self, method: str, path: str, timeout_s: float, **more: Any) -> pipe.Answer:
        socket = self.places.admin_socket
        try:
            return pipe.ask(socket, method, path, timeout_s=timeout_s, **more)
        except OSError as error:
            _only_owner(socket)
            refuse(
                f"the control plane of the mesh {self.places.name} does not answer: {_reason(error)}",
                Exit.TIMEOUT if isinstance(error, TimeoutError) else Exit.UNREACHABLE,
                advice="It is restarted when it dies; try again, and see `tulle check`.",
            )

    @staticmethod
    def _read(answer: pipe.Answer) -> Any:
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        try:
            said = json.loads(answer.body)
        except ValueError:
            said = {}
        if answer.is_error:
            found = said if isinstance(said, dict) else {}
            error = found.get("error") or {}
            text = error.get("text") or found.get("message") or f"the control plane answered HTTP {answer.status}"
            refuse(text, advice=error.get("advice", ""), code=error.get("code", ""))
        return said


def connect(mesh: str | None) -> Connection:
    """The mesh named (`kube` or `kube:CONTEXT`: in a cluster), or the only one that runs. Raises RefusedError (TUL0911, TUL0912)."""
    word = mesh or os.environ.get(MESH_VARIABLE, "")
    if word.partition(":")[0] == "kube":
        from tulle.cli.cluster_connection import connection_of

        return connection_of(word)
    return Connection(the_mesh(mesh))


def sidecar(socket: Path, path: str, *, pod: str, method: str = "GET", **query: str) -> pipe.Answer:
    """The answer of a sidecar's admin pipe; ends the command (69) where there is none."""
    try:
        return pipe.ask(socket, method, path, query=query, timeout_s=TIMEOUT_S)
    except OSError as error:
        _only_owner(socket)
        refuse(f"the sidecar of {pod} does not answer: {_reason(error)}", Exit.UNREACHABLE, advice="See `tulle ps`.")


def _only_owner(socket: Path) -> None:
    if socket.exists() and not os.access(socket, os.W_OK):
        refuse(f"{socket} belongs to another user", Exit.FORBIDDEN, advice="Run this as the mesh's owner.")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
