"""`tulle completion`: the script that a shell sources."""

import click
from click.shell_completion import get_completion_class

from tulle.cli.output import Exit, refuse


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell: `source <(tulle completion bash)`, `tulle completion fish | source`."""
    from tulle.cli import tulle

    made = get_completion_class(shell)
    if made is None:
        refuse(f"{shell} is not supported")
    click.echo(made(tulle, {}, "tulle", "_TULLE_COMPLETE").source())
    return Exit.OK
