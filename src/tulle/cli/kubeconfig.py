"""The options that say which cluster. Apart from `reaching`, so that a command may have them without a Kubernetes client at its start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def reaching(command: F) -> F:
    """`--kubeconfig` and `--context`."""
    context = click.option("--context", metavar="NAME", help="Of the kubeconfig.")
    file = click.option(
        "--kubeconfig",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Instead of $KUBECONFIG or ~/.kube/config.",
    )
    return file(context(command))
