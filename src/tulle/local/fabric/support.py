"""What of the fabric this machine allows, found by trying it.

For `tulle check` and for the choice of the fallback mode. The trial runs in a process of its own (`trial`), because
namespaces cannot be left again; this side only starts it and reads its findings.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import msgspec

from tulle.local.fabric.client import import_environment

_TRIAL_SECONDS: Final = 20.0


class Check(msgspec.Struct, frozen=True):
    """One thing the fabric needs."""

    name: str
    works: bool
    required: bool
    """Without it there is no fabric; otherwise something smaller is missing."""
    reason: str = ""
    """Why not, and what to do about it."""


class Support(msgspec.Struct, frozen=True):
    """Everything that was tried, in the order of trying; what follows a failed requirement was not tried."""

    checks: tuple[Check, ...]

    @property
    def has_fabric(self) -> bool:
        """True when meshes can be isolated on this machine."""
        return all(check.works for check in self.checks if check.required)

    @property
    def reason(self) -> str:
        """Why there is no fabric, in one line; empty when there is."""
        failed = [f"{check.name}: {check.reason}" for check in self.checks if check.required and not check.works]
        return "; ".join(failed)


async def probe_support() -> Support:
    """Try everything once: about 0.2 s, leaves nothing behind."""
    if sys.platform != "linux":
        return Support((Check("Linux", works=False, required=True, reason=f"this is {sys.platform}"),))
    trial = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tulle.local.fabric.trial"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=import_environment(),
    )
    try:
        printed, complaints = await asyncio.wait_for(trial.communicate(), _TRIAL_SECONDS)
    except TimeoutError:
        trial.kill()
        await trial.wait()
        reason = f"the trial did not end within {_TRIAL_SECONDS:.0f} s"
        return Support((Check("trial", works=False, required=True, reason=reason),))
    checks = [msgspec.json.decode(line, type=Check) for line in printed.splitlines()]
    if trial.returncode != 0:
        reason = complaints.decode(errors="replace").strip().rpartition("\n")[2] or f"status {trial.returncode}"
        checks.append(Check("trial", works=False, required=True, reason=reason))
    return Support(tuple(checks))
