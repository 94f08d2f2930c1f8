"""The way to a running mesh: its control plane's admin API over a Unix socket, and the admin pipes of its sidecars.

Knows paths of `local.places` and HTTP; what is asked and answered is the commands' business.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx

from tulle.cli.output import Exit, refuse
from tulle.local.places import Places, the_mesh

TIMEOUT_S = 10.0
F = TypeVar("F", bound=Callable[..., Any])


def mesh_option(function: F) -> F:
    """`--mesh`."""
    return click.option("--mesh", metavar="NAME", help="Which mesh, where several run ($TULLE_MESH).")(function)


def namespace_options(function: F) -> F:
    """`-n` and `-A`."""
    named = click.option("-n", "--namespace", default=None, metavar="NAME", help="Namespace (default: default).")
    every = click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Every namespace.")
    return named(every(function))


class Connection:
    """One running mesh. Every failure to reach it ends the command with code 69 and what to do."""

    def __init__(self, places: Places) -> None:
        self.places = places

    def get(self, path: str, timeout_s: float = TIMEOUT_S, **query: str | int | None) -> Any:
        """The JSON answer of the control plane; None for 404."""
        asked = {name: value for name, value in query.items() if value is not None}
        return self._ask("GET", path, timeout_s, params=asked)

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> Any:
        """The JSON answer of the control plane; None for 404."""
        return self._ask("POST", path, timeout_s, json=dict(body))

    def _ask(self, method: str, path: str, timeout_s: float, **more: Any) -> Any:
        answer = _ask(self.places.admin_socket, method, path, timeout_s, self._unreachable, **more)
        if answer.status_code == 404:
            return None
        if answer.is_error:
            _told(answer)
        return answer.json()

    def _unreachable(self, error: Exception) -> None:
        refuse(
            f"the control plane of the mesh {self.places.name} does not answer: {_reason(error)}",
            Exit.TIMEOUT if isinstance(error, httpx.ReadTimeout) else Exit.UNREACHABLE,
            advice="It is restarted when it dies; try again, and see `tulle check`.",
        )


def connect(mesh: str | None) -> Connection:
    """The mesh named, or the only one that runs. Raises RefusedError (TUL0911, TUL0912)."""
    return Connection(the_mesh(mesh))


def sidecar(socket: Path, path: str, *, pod: str, method: str = "GET", **query: str) -> httpx.Response:
    """The answer of a sidecar's admin pipe; ends the command (69) where there is none."""

    def unreachable(error: Exception) -> None:
        refuse(f"the sidecar of {pod} does not answer: {_reason(error)}", Exit.UNREACHABLE, advice="See `tulle ps`.")

    return _ask(socket, method, path, TIMEOUT_S, unreachable, params=query)


def _ask(
    socket: Path, method: str, path: str, timeout_s: float, unreachable: Callable[[Exception], None], **more: Any
) -> httpx.Response:
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, base_url="http://tulle", timeout=timeout_s, trust_env=False) as client:
        try:
            return client.request(method, path, **more)
        except httpx.TransportError as error:
            if _is_forbidden(socket):
                refuse(f"{socket} belongs to another user", Exit.FORBIDDEN, advice="Run this as the mesh's owner.")
            unreachable(error)
            raise


def _is_forbidden(socket: Path) -> bool:
    return socket.exists() and not os.access(socket, os.W_OK)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _told(answer: httpx.Response) -> None:
    try:
        said = answer.json()
    except ValueError:
        said = {}
    found = said if isinstance(said, dict) else {}
    error = found.get("error") or {}
    text = error.get("text") or found.get("message") or f"the control plane answered HTTP {answer.status_code}"
    refuse(text, advice=error.get("advice", ""), code=error.get("code", ""))
