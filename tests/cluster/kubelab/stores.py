"""Image stores made once: a containerd's folder with images imported and unpacked, from which each node's is made by links.

Unpacked layers never change (a container writes into a layer of its own), nor do blobs: hard links are copies. Only the
databases are copied. Needs the cache and the clusters' folders on one file system, which they are.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .builds import locked
from .layout import cache
from .saying import say

UNUSED_S = 24 * 3600.0
LONGEST_S = 300
SETTINGS = """version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
root = "{root}"
state = "{folder}/state"
[grpc]
  address = "{folder}/s"
[ttrpc]
  address = "{folder}/t"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
"""
# a mount namespace of its own: nothing that unpacking mounts is seen elsewhere
SCRIPT = """set -u
folder=$1; shift
mount --make-rprivate /
mount -t tmpfs tmpfs /run
containerd -c "$folder/settings.toml" >"$folder/log" 2>&1 &
daemon=$!
n=0; until ctr -a "$folder/s" version >/dev/null 2>&1 || [ $n = 600 ]; do n=$((n+1)); sleep 0.05; done
for archive; do ctr -a "$folder/s" -n k8s.io images import "$archive" || { cat "$folder/log"; exit 1; }; done
kill $daemon; wait $daemon; :
"""


def store(archives: list[Path]) -> Path:
    """The folder of a containerd that has these images; made when it is not there. Raises RuntimeError when one does not import."""
    key = hashlib.sha256("\0".join([SETTINGS, SCRIPT, *(path.name for path in archives)]).encode()).hexdigest()[:16]
    folder = cache() / "stores"
    target = folder / key
    with locked(folder / ".lock"):
        _forget(folder)
        if not target.exists():
            _make(target, archives)
        os.utime(target)
    return target


def link(source: Path, target: Path) -> None:
    """A store of a node: links to everything but the databases."""

    def put(one: str, other: str) -> None:
        if one.endswith(".db"):
            shutil.copy2(one, other)
        else:
            os.link(one, other, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, copy_function=put)


def _make(target: Path, archives: list[Path]) -> None:
    say("unpacking images")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="m") as folder:
        root = Path(folder) / "root"
        (Path(folder) / "settings.toml").write_text(SETTINGS.format(root=root, folder=folder))
        line = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
        ]
        line += ["sh", "-c", SCRIPT, "store", folder, *map(str, archives)]
        done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=LONGEST_S)
        if done.returncode != 0:
            raise RuntimeError(f"images do not import:\n{done.stdout}{done.stderr}"[-3000:])
        root.rename(target)


def _forget(folder: Path) -> None:
    """Stores that nobody asked for since yesterday; a node that was made from one keeps its links."""
    old = time.time() - UNUSED_S
    for path in folder.iterdir():
        if path.is_dir() and path.stat().st_mtime < old:
            shutil.rmtree(path)
