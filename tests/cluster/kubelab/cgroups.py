"""A control group per node, under either version of cgroups; removed with everything below it."""

import time
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "unified")
LONGEST_S = 20.0
STEP_S = 0.1


def is_version_2() -> bool:
    """One hierarchy instead of one per controller."""
    return (ROOT / "cgroup.controllers").exists()


def create(name: str) -> None:
    """Make the group in every hierarchy there is, usable as a kubelet's root."""
    if is_version_2():
        _create_2(name)
        return
    for controller in CONTROLLERS:
        if (ROOT / controller).is_dir():
            (ROOT / controller / name).mkdir(exist_ok=True)
    for file in ("cpus", "mems"):
        # a cpuset without processors takes no process
        (ROOT / "cpuset" / name / f"cpuset.{file}").write_text((ROOT / "cpuset" / f"cpuset.{file}").read_text())


def _create_2(name: str) -> None:
    group = ROOT / name
    group.mkdir(exist_ok=True)
    for controller in (ROOT / "cgroup.controllers").read_text().split():
        for folder in (ROOT, group):
            try:
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError:
                break  # a controller that may not be delegated; the kubelet says so if it needs it


def remove(name: str) -> None:
    """Remove the group and all below. Raises TimeoutError when processes are left in it."""
    until = time.monotonic() + LONGEST_S
    roots = [ROOT / name] if is_version_2() else [ROOT / controller / name for controller in CONTROLLERS]
    while left := [root for root in roots if root.is_dir()]:
        for root in left:
            _remove_tree(root)
        if time.monotonic() > until:
            raise TimeoutError(f"control groups that cannot be removed: {left}")
        if any(root.is_dir() for root in left):
            time.sleep(STEP_S)


def _remove_tree(root: Path) -> None:
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        _remove_one(folder)
    _remove_one(root)


def _remove_one(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # a process of it is still dying; the caller tries again
