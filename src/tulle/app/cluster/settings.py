"""Which replica this is, and what it injects: the installation's words, read from arguments, environment and files."""

import os
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from tulle.app.settings import Settings, SettingsRefusedError
from tulle.injecting.settings import InjectionSettings
from tulle.installing.naming import Names


class Replica(Struct, frozen=True, kw_only=True):
    """One of the control planes of a revision."""

    name: str
    """Of its pod."""
    names: Names
    state_dir: Path
    listen: str
    """Address of the ports that proxies and the API server reach."""
    injection: InjectionSettings


def injection(path: Path | None, names: Names, settings: Settings) -> InjectionSettings:
    """What is injected: the installation's word, and what it must agree with. Raises SettingsRefusedError, OSError."""
    raw = path.read_bytes() if path else b"{}"
    try:
        found = msgspec.json.decode(raw, type=InjectionSettings)
    except msgspec.MsgspecError as error:
        raise SettingsRefusedError(f"{path}: {error}") from error
    images = {
        name: os.environ[variable]
        for name, variable in (
            ("proxy_image", "TULLE_PROXY_IMAGE"),
            ("capture_image", "TULLE_CAPTURE_IMAGE"),
            ("image_pull_policy", "TULLE_PULL_POLICY"),
        )
        if os.environ.get(variable)
    }
    return replace(
        found,
        revision=names.revision,
        namespace=names.namespace,
        cluster=settings.cluster,
        mesh_id=settings.mesh_id,
        trust_domain=settings.trust_domain,
        **images,
    )
