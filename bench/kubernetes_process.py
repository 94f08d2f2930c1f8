"""A control plane with a real cluster as its source, for `bench.kubernetes`: the wiring of `tulle.app.cluster` without its duties.

Prints one line of JSON when every object was read and one when proxies can connect; then serves anybody, in plaintext, on loopback.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import resource
import sys
import time
from pathlib import Path

import psutil

from tulle.app.control import GARBAGE
from tulle.app.control_plane import ControlPlane
from tulle.app.settings import load
from tulle.kube.access import Access
from tulle.serve import logs
from tulle.sources.kubernetes import KubernetesSource


async def main(kubeconfig: str, address: str, state: str, settings_file: str) -> None:
    """Until it is killed."""
    settings = load(Path(settings_file))
    async with Access.from_kubeconfig(kubeconfig) as access:
        source = KubernetesSource(access, cluster=settings.cluster)
        await source.start()
        await source.synced()
        _say("read", objects=len(source.objects))
        plane = ControlPlane(source, settings, None, Path(state))
        await plane.open()
        await plane.open_plaintext(address)
        _say("ready", objects=len(source.objects))
        await asyncio.Event().wait()


def _say(what: str, **more: object) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    line = {
        "what": what,
        "seconds": round(time.time() - psutil.Process().create_time(), 3),
        "cpuSeconds": round(used.ru_utime + used.ru_stime, 3),
        "peakMiB": round(used.ru_maxrss / 1024, 1),
        **more,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    gc.set_threshold(*GARBAGE)
    logs.start("text", logging.WARNING)
    asyncio.run(main(*sys.argv[1:5]))
