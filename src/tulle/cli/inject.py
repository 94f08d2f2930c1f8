"""`tulle inject -f`: manifests with sidecars, without a cluster. The same function answers the webhook.

Documents without pods come out as they were written; the others lose their comments.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import msgspec
import yaml

from tulle.cli.manifests import texts
from tulle.cli.output import Exit, Finding, Refused, is_error, report, say
from tulle.dialects.kubernetes.injection import Role
from tulle.injecting.documents import Document, Namespaces, document
from tulle.injecting.settings import InjectionSettings
from tulle.model.problems import NOWHERE, problem
from tulle.sources.scalars import Unfit, plain_scalar
from tulle.sources.yaml_text import Chunk, Marks, chunks, inside_of, parsed, place_of


class _Read(NamedTuple):
    """A document of a file."""

    file: str
    chunk: Chunk
    value: Any
    marks: Marks
    is_alone: bool
    """Whether the chunk's text is this document's."""


@click.command()
@click.option(
    "-f", "--filename", "names", multiple=True, required=True, metavar="FILE|DIR|-", help="Manifests; - is stdin."
)
@click.option("-n", "--namespace", default="default", metavar="NAME", help="For objects that name none.")
@click.option(
    "--settings",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON: what the installation says about injection (key `injection` of mesh.json, or that object alone).",
)
@click.option("--revision", metavar="NAME", help="Of the control plane that the pods are for.")
@click.option("--discovery", metavar="HOST:PORT", help="Where the proxies find it.")
@click.option("--proxy-image", metavar="IMAGE", help="Envoy.")
@click.option("--capture-image", metavar="IMAGE", help="The capture program.")
@click.option("--capture", type=click.Choice(["init", "cni"]), help="An init container, or the node's CNI plugin.")
def inject(*, names: tuple[str, ...], namespace: str, file: Path | None, **words: str | None) -> int:
    """Print manifests with sidecars added to their pods; nothing is asked of a cluster."""
    settings = _settings(file, words)
    findings: list[Finding] = []
    read = list(_read(names, findings))
    namespaces = Namespaces((one.value for one in read), namespace)
    for one in read:
        made = document(one.value, namespaces, settings)
        findings += _findings(one, made)
        _print(one, made)
    report(findings)
    return Exit.BAD_INPUT if any(is_error(one) for one in findings) else Exit.OK


def _settings(file: Path | None, words: dict[str, str | None]) -> InjectionSettings:
    try:
        raw = {} if file is None else msgspec.json.decode(file.read_bytes())
        raw = raw.get("injection", raw) if isinstance(raw, dict) else raw
        found = msgspec.convert(raw, InjectionSettings)
    except (msgspec.MsgspecError, OSError) as error:
        raise Refused(f"{file}: {error}", Exit.BAD_INPUT) from error
    return msgspec.structs.replace(found, **{name: word for name, word in words.items() if word})


def _read(names: tuple[str, ...], findings: list[Finding]) -> Iterator[_Read]:
    for name in names:
        for file, text in texts(name, findings):
            for chunk in chunks(text):
                documents, flaw, notes = parsed(chunk)
                for one in (*notes, *((flaw,) if flaw else ())):
                    found = problem(one.code, NOWHERE, **one.arguments)
                    findings.append(Finding.of(found, file, chunk.line + one.line + 1))
                for value, marks in documents:
                    yield _Read(file, chunk, value, marks, len(documents) == 1)


def _findings(read: _Read, made: Document) -> Iterator[Finding]:
    for key, steps, answer in made.answers:
        marks = inside_of(read.marks, *steps)
        for found in answer.problems:
            line = place_of(marks, found.origin.path)[0]
            yield Finding.of(found, read.file, read.chunk.line + line + 1)
        if answer.role is Role.NONE and not answer.problems:
            say(f"{key}: not injected ({answer.because})")


def _print(read: _Read, made: Document) -> None:
    if read.value is None:
        return
    is_same = read.is_alone and all(answer.injected.role is Role.NONE for answer in made.answers)
    text = read.chunk.text if is_same else yaml.dump(made.value, Dumper=_Dumper, **_STYLE)
    if not text.startswith("---"):
        click.echo("---")
    click.echo(text, nl=not text.endswith("\n"))


_STYLE: Final[dict[str, Any]] = {"sort_keys": False, "allow_unicode": True, "width": 1000}


class _Dumper(yaml.SafeDumper):
    """Text that Kubernetes could read as something else stands in quotes; nothing is written as an alias."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        is_text = plain_scalar(text) == text
    except Unfit:
        is_text = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_text else '"')


_Dumper.add_representer(str, _text)
