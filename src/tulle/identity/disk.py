"""Few, small, durable file operations for keys: each either happened whole or not at all after a power cut.

Knows paths and modes, nothing of certificates. What the files mean is `store.py`'s.
"""

import contextlib
import os
import stat
from pathlib import Path

from tulle.identity.errors import (
    DirectoryOpenToOthers,
    ForeignOwner,
    KeyOpenToOthers,
    StateDamaged,
    StateUnwritable,
)

MAX_FILE_BYTES = 1024 * 1024
TEMPORARY = ".new-"
"""How names of unfinished files begin."""


class Disk:
    """The operations; one object, so that a test can fail each of them."""

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of mode 0600 under its final name, atomically and durably. Raises TUL0519."""
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        try:
            self.remove(temporary)
            self.fill(temporary, content)
            self.rename(temporary, path)
            self.settle(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):  # The first error is the one to tell; leftovers go at the next start.
                temporary.unlink()
            raise _unwritable(path, error) from error

    def fill(self, path: Path, content: bytes) -> None:
        """Create a file that must not exist, and write it down to the disk."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o600)  # The umask may have taken the owner's bits.
            file.write(content)
            file.flush()
            os.fsync(handle)

    def rename(self, path: Path, final: Path) -> None:
        """Move over whatever has the final name."""
        path.replace(final)

    def settle(self, directory: Path) -> None:
        """Make renames and removals in a directory durable."""
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        """Remove a file, or nothing."""
        path.unlink(missing_ok=True)


def own_directory(directory: Path) -> None:
    """Make a directory of mode 0700, or check the one there. Raises TUL0504, TUL0518, TUL0519."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise _unwritable(directory, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise StateDamaged(path=directory, reason="it is not a directory")
    if status.st_uid != os.geteuid():
        raise ForeignOwner(path=directory, owner=status.st_uid)
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise DirectoryOpenToOthers(path=directory, mode=f"{stat.S_IMODE(status.st_mode):04o}")


def read_private(path: Path) -> bytes:
    """A secret file of ours: regular, not a link, of mode 0600 or less. Raises TUL0503, TUL0505, TUL0518, TUL0519."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(path, error) from error
    # The checks are of the open file: the name may point to another one by now.
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise StateDamaged(path=path, reason="it is not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise ForeignOwner(path=path, owner=status.st_uid)
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise KeyOpenToOthers(path=path, mode=f"{stat.S_IMODE(status.st_mode):04o}")
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise StateDamaged(path=path, reason=f"it is larger than {MAX_FILE_BYTES} bytes")
    return content


def _unwritable(path: Path, error: OSError) -> StateUnwritable:
    return StateUnwritable(path=path, reason=error.strerror or type(error).__name__)
