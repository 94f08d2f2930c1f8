"""The command `tulle`: a lazy table of commands, and the one place where exit codes are decided.

Sub-commands live in modules of this room and are imported when they are called, so that `tulle --help` is instant. A
command whose module does not exist is not listed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from tulle.model.problems import Problem

COMMANDS: Final = {
    "up": ("tulle.cli.up:up", "Run manifests as a mesh on this machine."),
    "down": ("tulle.cli.down:down", "Stop a mesh and remove every trace of its run."),
    "ps": ("tulle.cli.ps:ps", "List the pods of a mesh."),
    "logs": ("tulle.cli.logs:logs", "Print what workloads or their sidecars wrote."),
    "check": ("tulle.cli.check:check", "Say what this machine allows and what a mesh is in need of."),
    "demo": ("tulle.cli.demo:demo", "Run the bundled book shop and show what a mesh does."),
    "exec": ("tulle.cli.exec:exec_", "Run a command inside a workload's sandbox."),
    "restart": ("tulle.cli.restart:restart", "Restart a workload, or replace a sidecar without losing a request."),
    "apply": ("tulle.cli.apply:apply", "Change configuration and wait until every proxy has it."),
    "delete": ("tulle.cli.delete:delete", "Remove configuration and wait until every proxy has let go of it."),
    "get": ("tulle.cli.get:get", "List objects of the mesh."),
    "describe": ("tulle.cli.describe:describe", "Say everything about one object."),
    "explain": ("tulle.cli.explain:explain", "Explain a code, a route, or why a value is what it is."),
    "inject": ("tulle.cli.inject:inject", "Add sidecars to the pods of manifests."),
    "analyze": ("tulle.cli.analyze:analyze", "Look for mistakes in manifests."),
    "diff": ("tulle.cli.diff:diff", "Say what applying manifests would change."),
    "proxy": ("tulle.cli.proxy:proxy", "Look into sidecars: status, configuration, log levels."),
    "stat": ("tulle.cli.stat:stat", "Success rates, request rates and latencies."),
    "edges": ("tulle.cli.edges:edges", "Who talks to whom, and how that is secured."),
    "routes": ("tulle.cli.routes:routes", "The routes of a workload."),
    "authz": ("tulle.cli.authz:authz", "Who may call a workload."),
    "install": ("tulle.cli.install:install", "Install the mesh into a Kubernetes cluster."),
    "upgrade": ("tulle.cli.upgrade:upgrade", "Bring an installation to this version."),
    "uninstall": ("tulle.cli.uninstall:uninstall", "Remove an installation from a cluster."),
    "tag": ("tulle.cli.tag:tag", "Names for revisions: which one `istio.io/rev=NAME` means."),
    "manifest": ("tulle.cli.manifest:manifest", "Print what an installation consists of."),
    "version": ("tulle.cli.version:version", "Print versions."),
    "completion": ("tulle.cli.completion:completion", "Print the completion script of a shell."),
}
"""Name -> (`module:function`, one line for `--help`)."""

FAILURE: Final = 1
BAD_INPUT: Final = 65
UNREACHABLE: Final = 69
TRY_AGAIN: Final = 75
NOT_ALLOWED: Final = 77
FINDINGS: Final = 79
INTERRUPTED: Final = 130

_EXIT_BY_CODE: Final = {
    "TUL0907": BAD_INPUT,
    "TUL0911": UNREACHABLE,
    "TUL0913": NOT_ALLOWED,
    "TUL0918": NOT_ALLOWED,
    "TUL0920": UNREACHABLE,
}
_EPILOG: Final = (
    "Exit codes: 0 well, 1 failure, 2 wrong usage, 65 bad input, 69 control plane unreachable, 75 timed out, "
    "77 not allowed, 79 findings, 130 interrupted."
)


class LazyGroup(click.Group):
    """Commands by name of module; help of the list needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names of the commands that exist, in the table's order."""
        return [name for name, (target, _words) in COMMANDS.items() if _exists(target)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import one command; None when there is none of that name."""
        target = COMMANDS.get(cmd_name, ("", ""))[0]
        if not target or not _exists(target):
            return None
        module, _, function = target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        rows = [(name, COMMANDS[name][1]) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _exists(target: str) -> bool:
    return importlib.util.find_spec(target.partition(":")[0]) is not None


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def tulle() -> None:
    """A service mesh that runs where you are: Envoy underneath, Istio's YAML on top."""


def say_problem(found: Problem) -> None:
    """Print a problem and what to do about it."""
    click.secho(f"{found.code}  {found.text}", fg="red", err=True)
    click.echo(f"  {found.advice}", err=True)


def main(arguments: list[str] | None = None, program: str = "tulle") -> NoReturn:
    """Run the command line; the exit codes are those `--help` lists."""
    sys.exit(_run(arguments, program))


def kubectl() -> NoReturn:
    """`kubectl tulle`: the same commands, of the cluster that kubectl means unless another mesh is named."""
    os.environ.setdefault("TULLE_MESH", "kube")
    main(program="kubectl tulle")


def kubectl_complete() -> NoReturn:
    """Completion of `kubectl tulle`: kubectl runs `kubectl_complete-tulle WORDS...` and reads cobra's form of the answers."""
    from click.shell_completion import ShellComplete

    words = sys.argv[1:] or [""]
    for found in ShellComplete(tulle, {}, "tulle", "").get_completions(words[:-1], words[-1]):
        click.echo(f"{found.value}\t{found.help}" if found.help else found.value)
    click.echo(":4")  # cobra's ShellCompDirectiveNoFileComp
    sys.exit(0)


def _run(arguments: list[str] | None, program: str) -> int:
    try:
        code: Any = tulle.main(arguments, prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has read enough (`| head`); Python would complain again when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        found: Problem | None = getattr(error, "problem", None)
        if found is None:
            raise
        say_problem(found)
        return _EXIT_BY_CODE.get(found.code, FAILURE)
    return code if isinstance(code, int) else 0
