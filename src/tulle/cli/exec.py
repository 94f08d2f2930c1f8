"""`tulle exec`: run a command inside a workload's sandbox, as the workload would.

The supervisor starts it (POST /v1/exec); knows nothing of sandboxes.
"""

import base64
import sys
from typing import Any

import click

from tulle.cli.connection import mesh_option, only_here
from tulle.cli.output import Exit, refuse
from tulle.local.asking_now import ask_now
from tulle.local.places import the_mesh

SLACK_S = 5.0
"""What the supervisor may take beyond the time the command was given."""
KILLED = 128
"""Shells' exit code of a process that a signal ended: this and the signal's number."""


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("pod")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("-n", "--namespace", default="", metavar="NAME", help="Namespace of the pod (default: default).")
@click.option("-c", "--container", default="", metavar="NAME", help="Which container (default: the first).")
@click.option("--timeout", default=600.0, metavar="SECONDS", help="When the command is killed.")
@mesh_option
def exec_(
    *, pod: str, command: tuple[str, ...], namespace: str, container: str, timeout: float, mesh: str | None
) -> int:
    """Run COMMAND inside a pod: `tulle exec reviews-v1 -- curl -s details:9080/health`. Its exit code is ours."""
    words = f" -c {container}" if container else ""
    place = f" -n {namespace}" if namespace else ""
    line = f"`kubectl exec{place} {pod}{words} -- {command[0]} ...`"
    only_here(mesh, "exec", f"{line}; of a workload any pod: `deploy/{pod}`. The proxy's container has nothing to run.")
    places = the_mesh(mesh)
    wanted: dict[str, Any] = {
        "name": pod,
        "namespace": namespace or "default",
        "container": container,
        "command": list(command),
        "timeoutSeconds": timeout,
    }
    try:
        status, answer = ask_now(places.supervisor_socket, "POST", "/v1/exec", wanted, timeout + SLACK_S)
    except OSError as error:
        refuse(f"the mesh {places.name} does not answer: {error}", Exit.UNREACHABLE, advice="See `tulle ps`.")
    if status == 404:
        refuse(f"no pod in {namespace or 'default'} is called {pod}", advice="`tulle ps` lists them.")
    if status != 200:
        refuse(str(answer.get("error", status)))
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        stream.flush()
        stream.buffer.write(base64.b64decode(answer[name]))
        stream.flush()
    return int(answer["code"]) if answer["code"] is not None else KILLED + int(answer["signal"])
