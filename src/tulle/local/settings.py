"""tulle.yaml: what stands beside manifests and is not one. Today: which image is which local command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml

from tulle.local.refusals import RefusedError, refusal


def find_settings(start: Path) -> Path | None:
    """The nearest tulle.yaml from a folder upwards, up to the root of its repository."""
    for folder in (start, *start.parents):
        found = folder / "tulle.yaml"
        if found.is_file():
            return found
        if (folder / ".git").exists():
            return None
    return None


def images_of(path: Path) -> Mapping[str, tuple[str, ...]]:
    """The `images:` table: image -> command. Raises `RefusedError` (TUL0907)."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RefusedError(refusal("TUL0907", reason=" ".join(str(error).split()))) from error
    images = (content or {}).get("images") if isinstance(content, dict) or content is None else None
    if not isinstance(images or {}, dict) or (content is not None and not isinstance(content, dict)):
        raise RefusedError(refusal("TUL0907", reason="it is not a map"))
    return {str(image): _words(command) for image, command in (images or {}).items()}


def _words(command: object) -> tuple[str, ...]:
    if isinstance(command, str):
        return tuple(shlex.split(command))
    if isinstance(command, list):
        return tuple(str(word) for word in command)
    raise RefusedError(refusal("TUL0907", reason="an image needs a command: a list of words, or one line"))
