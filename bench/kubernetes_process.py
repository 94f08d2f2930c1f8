"""A control plane with a real cluster as its source, for `bench.kubernetes`: the wiring of `tulle.app.cluster` without its duties.

Prints one line of JSON when every object was read and one when proxies can connect; then serves anybody, in plaintext, on loopback.
Objects with the annotation WRITTEN are timed from then until what they changed was handed to the proxies; `end` prints the times.
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

from tulle.app.control_plane import ControlPlane
from tulle.app.process import GARBAGE
from tulle.app.settings import Settings, load
from tulle.kube.access import Access
from tulle.serve import logs
from tulle.serve.pushing import Pushed
from tulle.sources.kubernetes import KubernetesSource

WRITTEN = "tulle.dev/bench-written"
"""Unix time at which the object was sent to the API, or `end`."""


class TimedPlane(ControlPlane):
    """Measures how old a change is when it has been pushed."""

    def __init__(self, source: KubernetesSource, settings: Settings, state: Path) -> None:
        super().__init__(source, settings, None, state)
        self._source = source
        self._lags: list[float] = []

    async def take(self) -> Pushed:
        """As ControlPlane, timed."""
        found = [dict(one.annotations).get(WRITTEN) for each in self._source.pending for one in each.change.sets]
        pushed = await super().take()
        now = time.time()
        self._lags += [now - float(written) for written in found if written and written != "end"]
        if "end" in found:
            _say("churn", lags=[round(lag, 4) for lag in sorted(self._lags)])
            self._lags = []
        return pushed


async def main(kubeconfig: str, address: str, state: str, settings_file: str) -> None:
    """Until it is killed."""
    settings = load(Path(settings_file))
    async with Access.from_kubeconfig(kubeconfig) as access:
        source = KubernetesSource(access, cluster=settings.cluster)
        await source.start()
        await source.synced()
        _say("read", objects=len(source.objects))
        plane = TimedPlane(source, settings, Path(state))
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
