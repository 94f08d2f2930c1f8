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
    from tulle.telemetry.merged import Sidecar

TIMEOUT_S = 10.0
HERE = "On this machine: give it a `--name`, or unset TULLE_MESH."
KUBE = "kube"
"""The mesh of this name is in a cluster."""
F = TypeVar("F", bound=Callable[..., Any])


def mesh_option(function: F) -> F:
    """`--mesh`, and kubectl's words for one in a cluster: `--context`, `--kubeconfig`."""
    return mesh_named("--mesh")(function)


def mesh_named(*names: str) -> Callable[[F], F]:
    """`--mesh` by these names, with `--context` and `--kubeconfig`, which choose a cluster for the whole process."""

    def decorated(function: F) -> F:
        mesh = click.option(
            *names,
            metavar="NAME",
            help="Which mesh, where several run; kube or kube:CONTEXT: in a cluster ($TULLE_MESH).",
        )
        context = click.option(
            "--context",
            metavar="NAME",
            expose_value=False,
            callback=_of_context,
            help="A mesh in a cluster: kube:NAME.",
        )
        file = click.option(
            "--kubeconfig",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            expose_value=False,
            callback=_of_kubeconfig,
            help="A mesh in a cluster: instead of $KUBECONFIG or ~/.kube/config.",
        )
        return mesh(context(file(function)))

    return decorated


def _of_context(_: click.Context, __: click.Parameter, name: str | None) -> None:
    if name:
        os.environ[MESH_VARIABLE] = f"kube:{name}"


def _of_kubeconfig(_: click.Context, __: click.Parameter, path: str | None) -> None:
    if path:
        os.environ["KUBECONFIG"] = path
        if not in_cluster(None):
            os.environ[MESH_VARIABLE] = "kube"


def namespace_options(function: F) -> F:
    """`-n` and `-A`."""
    named = click.option(
        "-n", "--namespace", default=None, metavar="NAME", help="Namespace (default: default, or the context's)."
    )
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

    @property
    def default_namespace(self) -> str:
        """Where an object is that is named without a namespace."""
        return "default"

    def get(self, path: str, timeout_s: float = TIMEOUT_S, **query: str | None) -> Any:
        """The JSON answer of the control plane; None for 404."""
        asked = {name: value for name, value in query.items() if value}
        return self._read(self._ask("GET", path, timeout_s, query=asked))

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> Any:
        """The JSON answer of the control plane; None for 404."""
        return self._read(self._ask("POST", path, timeout_s, body=json.dumps(dict(body)).encode()))

    def sidecar(self, proxy: Mapping[str, Any], path: str, *, method: str = "GET", **query: str) -> pipe.Answer:
        """The answer of a proxy's admin interface (`proxy`: an entry of /v1/proxies); ends the command (69) where there is none."""
        socket = self.places.envoy(proxy["uid"]) / "admin.sock"
        try:
            return pipe.ask(socket, method, path, query=query, timeout_s=TIMEOUT_S)
        except OSError as error:
            _only_owner(socket)
            reason = _reason(error)
            refuse(
                f"the sidecar of {proxy['id']} does not answer: {reason}", Exit.UNREACHABLE, advice="See `tulle ps`."
            )

    def sidecars(self) -> "tuple[Sidecar, ...]":
        """Every proxy whose metrics can be asked for, by name."""
        from tulle.telemetry.merged import sidecars

        return sidecars(self.places.run)

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


def mesh_word(mesh: str | None) -> str:
    """What names the mesh: `--mesh`, else $TULLE_MESH. `--mesh kube` with a context chosen otherwise is that context."""
    chosen = os.environ.get(MESH_VARIABLE, "")
    return chosen if mesh == KUBE and chosen.startswith(f"{KUBE}:") else mesh or chosen


def in_cluster(mesh: str | None) -> bool:
    """Whether the mesh meant is one in a cluster."""
    return mesh_word(mesh).partition(":")[0] == KUBE


def only_here(mesh: str | None, command: str, instead: str) -> None:
    """End a command of the local run that was asked of a cluster, and say what does it there."""
    if in_cluster(mesh):
        from tulle.cli.reaching import refuse_with

        refuse_with("TUL1134", Exit.USAGE, command=command, instead=instead.removesuffix("."))


def the_namespace(mesh: str | None, namespace: str | None) -> str:
    """`-n`, or what holds without it: before there is a connection. Ends the command where there is no kubeconfig (TUL1002)."""
    if namespace or not in_cluster(mesh):
        return namespace or "default"
    from tulle.cli.cluster_connection import namespace_of

    return namespace_of(mesh_word(mesh))


def connect(mesh: str | None) -> Connection:
    """The mesh named (`kube` or `kube:CONTEXT`: in a cluster), or the only one that runs. Raises RefusedError (TUL0911, TUL0912)."""
    word = mesh_word(mesh)
    if in_cluster(mesh):
        from tulle.cli.cluster_connection import connection_of

        return connection_of(word)
    return Connection(the_mesh(mesh))


def _only_owner(socket: Path) -> None:
    if socket.exists() and not os.access(socket, os.W_OK):
        refuse(f"{socket} belongs to another user", Exit.FORBIDDEN, advice="Run this as the mesh's owner.")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
