"""`tulle manifest`: what an installation consists of, for people who apply it by other means."""

import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from tulle.cli.choosing import Choice, choosing
from tulle.cli.output import Exit, Format, as_yaml, output_option, refuse, say
from tulle.installing.installation import Request, objects
from tulle.installing.values import PROFILES, plain, values_of


@click.group()
def manifest() -> None:
    """Print what an installation consists of."""


@manifest.command()
@click.option(
    "-a",
    "--api-versions",
    "apis",
    multiple=True,
    metavar="GROUP/VERSION/KIND",
    help="Kinds the cluster serves, such as gateway.networking.k8s.io/v1/GatewayClass.",
)
@click.option("--skip-crds", is_flag=True, help="Leave out the definitions of kinds.")
@output_option(Format.YAML, Format.JSON)
@choosing
def generate(*, choice: Choice, apis: tuple[str, ...], skip_crds: bool, form: Format) -> int:
    """Print the objects that `tulle install` would apply, in its order."""
    defaults = {"customResources": False} if skip_crds else {}
    made = objects(Request(choice.values(createNamespace=True, **defaults), choice.namespace, frozenset(apis)))
    if form is Format.JSON:
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2, ensure_ascii=False))
    else:
        click.echo("---\n".join(as_yaml(one) for one in made), nl=False)
    return Exit.OK


@manifest.command()
@click.argument("name", required=False, default="default", metavar="[NAME]")
def profile(*, name: str) -> int:
    """Print every value of a profile, for `-f`."""
    if name not in PROFILES:
        refuse(f"there is no profile {name}", Exit.USAGE, advice=f"Choose one of: {', '.join(PROFILES)}.")
    click.echo(as_yaml(plain(values_of(name))), nl=False)
    return Exit.OK


@manifest.command()
@click.argument("folder", type=click.Path(path_type=Path))
def chart(*, folder: Path) -> int:
    """Write the Helm chart into a new folder."""
    if folder.exists():
        refuse(f"{folder} exists", Exit.USAGE, advice="Name a folder that does not.")
    _copied(files("tulle.installing") / "chart", folder)
    say(f"helm install tulle {folder} --namespace tulle-system --create-namespace")
    return Exit.OK


def _copied(source: Traversable, target: Path) -> None:
    if source.is_file():
        target.write_bytes(source.read_bytes())
        return
    target.mkdir(parents=True)
    for entry in source.iterdir():
        _copied(entry, target / entry.name)
