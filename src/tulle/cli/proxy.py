"""`tulle proxy`: look into sidecars. The group; what it shows is `proxy_status`', `proxy_config`'s, and the log levels' here."""

import click

from tulle.cli.connection import connect, mesh_option, namespace_options
from tulle.cli.output import Exit, refuse
from tulle.cli.proxy_config import ALIASES, cluster, endpoint, listener, route, secret
from tulle.cli.proxy_status import status
from tulle.cli.targets import proxy_named

_LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")


class _Aliased(click.Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, by any of its words."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))


@click.group()
def proxy() -> None:
    """Look into sidecars: status, configuration, log levels."""


@click.group(cls=_Aliased)
def config() -> None:
    """What a live sidecar has, and the YAML line behind each row."""


@click.command()
@click.argument("pod")
@click.option("--level", default="", metavar="LEVEL|LOGGER:LEVEL,…", help="Set levels; without it they are listed.")
@namespace_options
@mesh_option
def log(*, pod: str, level: str, namespace: str | None, everywhere: bool, mesh: str | None) -> int:
    """List or set the log levels of a sidecar. Its log is `tulle logs --proxy`."""
    del everywhere
    connection = connect(mesh)
    found = proxy_named(connection, pod, namespace)
    for name, wanted in _wanted(level):
        answer = connection.sidecar(found, "/logging", method="POST", **{name: wanted})
        if answer.is_error:
            refuse(f"the sidecar of {found['id']} refuses {name}: {answer.text.strip().splitlines()[0]}")
    click.echo(connection.sidecar(found, "/logging", method="POST").text.rstrip())
    return Exit.OK


def _wanted(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, text.split(",")):
        name, colon, level = part.strip().rpartition(":")
        if level not in _LEVELS:
            raise click.UsageError(f"{level} is no level; levels are {', '.join(_LEVELS)}")
        pairs.append((name if colon else "level", level))
    return pairs


for _one in (cluster, listener, route, endpoint, secret):
    config.add_command(_one)
proxy.add_command(status)
proxy.add_command(config)
proxy.add_command(log)
