"""The files of a pod: volumes, resolv.conf, hosts; as folders of the run directory that are shown in the sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tulle.local.containers import Mount, Subject, World
from tulle.local.fabric.client import Bind
from tulle.local.manifests import Item, Volume


class MissingVolumeError(Exception):
    """A volume refers to something that does not exist; the text names it."""


def network_files(directory: Path, subject: Subject, domain: str) -> tuple[Bind, ...]:
    """resolv.conf with Kubernetes' search domains, and hosts with the pod's own name."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    search = " ".join((f"{subject.namespace}.svc.{domain}", f"svc.{domain}", domain))
    contents = {
        "resolv.conf": f"search {search}\nnameserver {subject.host_ip}\noptions ndots:5\n",
        "hosts": f"127.0.0.1\tlocalhost\n{subject.ip}\t{subject.hostname}\n",
        "hostname": f"{subject.hostname}\n",
    }
    for name, text in contents.items():
        (directory / name).write_text(text)
    return tuple(Bind(str(directory / name), f"/etc/{name}") for name in contents)


def binds(mounts: Iterable[Mount], subject: Subject, world: World, directory: Path, claims: Path) -> tuple[Bind, ...]:
    """The mounts of a container. Raises `MissingVolumeError`."""
    found = []
    for mount in mounts:
        source = _source(mount.volume, subject, world, directory, claims)
        if mount.sub_path:
            source = source / mount.sub_path
            if not source.exists():
                source.mkdir(parents=True)
        found.append(Bind(str(source), mount.path, writable=not mount.is_read_only))
    return tuple(found)


def _source(volume: Volume, subject: Subject, world: World, directory: Path, claims: Path) -> Path:
    if volume.host_path is not None:
        shown = Path(volume.host_path.path)
        if not shown.exists():
            raise MissingVolumeError(f"path {shown} of volume {volume.name}")
        return shown
    if volume.persistent_volume_claim is not None:
        kept = claims / subject.namespace / volume.persistent_volume_claim.claim_name
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        return kept
    made = directory / "volumes" / volume.name
    if not made.exists():
        made.mkdir(mode=0o700, parents=True)
        for path, content in _contents(volume, subject, world).items():
            target = made / path
            if not target.resolve().is_relative_to(made.resolve()):
                raise MissingVolumeError(f"a path inside volume {volume.name}: {path}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o600)
    return made


def _contents(volume: Volume, subject: Subject, world: World) -> Mapping[str, bytes]:
    if (wanted := volume.config_map) is not None:
        entries = world.config_map(subject.namespace, wanted.name)
        if entries is None and not wanted.optional:
            raise MissingVolumeError(f"ConfigMap {wanted.name}")
        return _chosen({name: text.encode() for name, text in (entries or {}).items()}, wanted.items)
    if (secret := volume.secret) is not None:
        material = world.secret(subject.namespace, secret.secret_name)
        if material is None and not secret.optional:
            raise MissingVolumeError(f"Secret {secret.secret_name}")
        bytes_of = {} if material is None else {name: material.entry(name) or b"" for name in material.keys}
        return _chosen(bytes_of, secret.items)
    return {}


def _chosen(entries: Mapping[str, bytes], items: tuple[Item, ...] | None) -> Mapping[str, bytes]:
    if items is None:
        return entries
    return {item.path: entries[item.key] for item in items if item.key in entries}
