"""What a container executes: its command on this machine, its environment, its mounts.

Pure: files are not read and programs not looked up here, but through what `World` carries. Starting is `pod`'s part.
Source: Kubernetes, "Define a Command and Arguments for a Container" ($(NAME) expansion, who wins over whom).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tulle.dialects.kubernetes.secret import SecretMaterial
from tulle.local.manifests import Container, EnvVar, NameRef, Volume
from tulle.model.origin import Origin
from tulle.model.problems import Problem, problem

COMMAND_ANNOTATION: Final = "tulle.dev/command"
NODE_NAME: Final = "local"
_REFERENCE: Final = re.compile(r"\$(\$|\(([A-Za-z_][A-Za-z0-9_.-]*)\))")
_INDEXED: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class World:
    """What containers may refer to."""

    config_map: Callable[[str, str], Mapping[str, str] | None]
    """(namespace, name) -> entries."""
    secret: Callable[[str, str], SecretMaterial | None]
    """(namespace, name) -> entries."""
    find_program: Callable[[str, str], str | None]
    """(word, working directory) -> the program as it can be executed, None if there is none."""
    images: Mapping[str, tuple[str, ...]]
    """tulle.yaml: image (with or without tag) -> command."""
    directory: str
    """Of the manifest: where commands run that name no other directory."""
    base_env: Mapping[str, str]


@dataclass(frozen=True)
class Subject:
    """The pod a container belongs to."""

    name: str
    namespace: str
    uid: str
    ip: str
    host_ip: str
    service_account: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    hostname: str
    volumes: tuple[Volume, ...]
    origin: Origin


@dataclass(frozen=True)
class Mount:
    """A path in a container."""

    volume: Volume
    path: str
    sub_path: str
    is_read_only: bool


@dataclass(frozen=True)
class Launch:
    """Everything needed to start a container."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    directory: str
    uid: int
    gid: int
    mounts: tuple[Mount, ...] = field(default=())


def launch(container: Container, subject: Subject, world: World) -> Launch | Problem:
    """How to start a container, or why it cannot be (TUL0901, TUL0902)."""
    directory = container.working_dir or world.directory
    try:
        env = _environment(container, subject, world)
    except _MissingError as missing:
        return problem("TUL0902", subject.origin, container=container.name, what=missing.what)
    found = command(container, subject.annotations, world, env)
    if found is None:
        wanted = shlex.join(container.command) if container.command else f"image {container.image}, without a command,"
        return problem(
            "TUL0901", subject.origin, container=container.name, command=wanted, image=container.image or "..."
        )
    context = container.security_context
    uid = context.run_as_user if context and context.run_as_user is not None else 1000
    gid = context.run_as_group if context and context.run_as_group is not None else uid
    return Launch(found, env, directory, uid, gid, tuple(_mounts(container, subject)))


def command(
    container: Container, annotations: Mapping[str, str], world: World, env: Mapping[str, str]
) -> tuple[str, ...] | None:
    """The container's command on this machine.

    Its own if the program is here, else the annotation `tulle.dev/command` (`tulle.dev/command.<container>` for one of
    several), else the `images:` table of tulle.yaml.
    """
    args = tuple(_expanded(word, env) for word in container.args or ())
    directory = container.working_dir or world.directory
    own = tuple(_expanded(word, env) for word in container.command or ())
    if own and (program := world.find_program(own[0], directory)):
        return (program, *own[1:], *args)
    said = annotations.get(f"{COMMAND_ANNOTATION}.{container.name}", annotations.get(COMMAND_ANNOTATION, ""))
    mapped = tuple(shlex.split(said)) if said else _mapped(container.image, world.images)
    if mapped and (program := world.find_program(mapped[0], directory)):
        return (program, *mapped[1:], *(own[1:] if own else ()), *args)
    return None


def _mapped(image: str, images: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    bare = image.partition("@")[0]
    head, _, tag = bare.rpartition(":")
    untagged = head if head and "/" not in tag else bare
    for name in (image, bare, untagged, untagged.rpartition("/")[2]):
        if name in images:
            return images[name]
    return ()


class _MissingError(Exception):
    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def _environment(container: Container, subject: Subject, world: World) -> dict[str, str]:
    env = dict(world.base_env)
    env["HOSTNAME"] = subject.hostname
    for source in container.env_from or ():
        for entries in _whole(source.config_map_ref, source.secret_ref, subject, world):
            env |= {source.prefix + name: value for name, value in entries.items() if not _NO_NAME.search(name)}
    for variable in container.env or ():
        value = _value(variable, subject, world, env)
        if value is not None:
            env[variable.name] = value
    return env


def _whole(
    config_map: NameRef | None, secret: NameRef | None, subject: Subject, world: World
) -> Iterator[Mapping[str, str]]:
    if config_map is not None:
        entries = world.config_map(subject.namespace, config_map.name)
        if entries is None and not config_map.optional:
            raise _MissingError(f"ConfigMap {config_map.name}")
        yield entries or {}
    if secret is not None:
        material = world.secret(subject.namespace, secret.name)
        if material is None and not secret.optional:
            raise _MissingError(f"Secret {secret.name}")
        yield {} if material is None else {name: _text(material.entry(name)) for name in material.keys}


def _value(variable: EnvVar, subject: Subject, world: World, env: Mapping[str, str]) -> str | None:
    source = variable.value_from
    if source is None:
        return _expanded(variable.value, env)
    if source.field_ref is not None:
        return _field(source.field_ref.field_path, subject)
    if (ref := source.config_map_key_ref) is not None:
        entries = world.config_map(subject.namespace, ref.name) or {}
        if ref.key in entries:
            return entries[ref.key]
        return _absent(is_optional=ref.optional, what=f"entry {ref.key} of ConfigMap {ref.name}")
    if (ref := source.secret_key_ref) is not None:
        material = world.secret(subject.namespace, ref.name)
        entry = None if material is None else material.entry(ref.key)
        return (
            _text(entry)
            if entry is not None
            else _absent(is_optional=ref.optional, what=f"entry {ref.key} of Secret {ref.name}")
        )
    return _absent(is_optional=False, what=f"a source for the variable {variable.name} that a local run has")


def _absent(*, is_optional: bool, what: str) -> str | None:
    if not is_optional:
        raise _MissingError(what)
    return None


def _text(content: bytes | None) -> str:
    return (content or b"").decode(errors="replace")


def _field(path: str, subject: Subject) -> str:
    simple = {
        "metadata.name": subject.name,
        "metadata.namespace": subject.namespace,
        "metadata.uid": subject.uid,
        "spec.nodeName": NODE_NAME,
        "spec.serviceAccountName": subject.service_account,
        "status.podIP": subject.ip,
        "status.podIPs": subject.ip,
        "status.hostIP": subject.host_ip,
        "status.hostIPs": subject.host_ip,
    }
    if path in simple:
        return simple[path]
    indexed = _INDEXED.fullmatch(path)
    if indexed is None:
        raise _MissingError(f"the field {path}")
    among = subject.labels if indexed[1] == "labels" else subject.annotations
    return among.get(indexed[2], "")


def _expanded(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` of a known name, `$$` for a dollar; unknown names stay as they are (Kubernetes' rule)."""

    def value(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return env.get(found[2], found[0])

    return _REFERENCE.sub(value, text)


def _mounts(container: Container, subject: Subject) -> Iterator[Mount]:
    volumes = {volume.name: volume for volume in subject.volumes}
    for mount in container.volume_mounts or ():
        volume = volumes.get(mount.name, Volume(name=mount.name))
        is_fixed = volume.config_map is not None or volume.secret is not None
        yield Mount(volume, mount.mount_path, mount.sub_path, mount.read_only or is_fixed)
