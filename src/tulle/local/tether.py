"""Run a program that dies with its parent: `python -I -S tether.py PARENT_PID PROGRAM ARGUMENT...`.

Standard library only and nothing imported but ctypes: it stands in front of every child of the supervisor that is
outside of the fabric.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the program."""
    parent, *argv = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.execv(argv[0], argv)  # noqa: S606 - an argument list needs no shell


if __name__ == "__main__":
    main()
