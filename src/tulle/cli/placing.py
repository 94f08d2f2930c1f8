"""Bringing objects of an installation into a cluster, in order, without touching what belongs to others.

Used by `install` and `upgrade`. What the objects are is `installing`'s; waiting is `awaiting`'s.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, NoReturn

from tulle.cli.awaiting import DAEMON_SETS, admission, established, rolled_out
from tulle.cli.choosing import Choice
from tulle.cli.installations import CHOSEN, is_ours
from tulle.cli.output import Exit
from tulle.cli.reaching import Cluster, Json, refuse_with, together
from tulle.cli.steps import Steps
from tulle.installing.cni import COMPONENT as NODE_AGENT
from tulle.installing.control_plane import COMPONENT
from tulle.installing.gateway import COMPONENT as INGRESS
from tulle.installing.installation import Request
from tulle.installing.naming import SETTINGS
from tulle.kube.errors import Refused
from tulle.kube.resources import DEPLOYMENTS

_COMPONENT: Final = "app.kubernetes.io/component"
_SETTLE_S: Final = 15.0
_AWAITED: Final = {"Deployment": DEPLOYMENTS, "DaemonSet": DAEMON_SETS}


class Placed(NamedTuple):
    """What became of the objects."""

    counts: Counter[str]
    """By `created`, `configured`, `unchanged`, `left`."""
    left: tuple[str, ...]
    """Definitions and namespaces of others, which stay as they are."""


class Placing:
    """One installation on its way into a cluster."""

    def __init__(self, cluster: Cluster, request: Request, steps: Steps, *, wait_s: float, is_dry: bool) -> None:
        self._cluster = cluster
        self._request = request
        self._steps = steps
        self._wait_s = wait_s
        self._is_dry = is_dry
        self._counts: Counter[str] = Counter()
        self._left: list[str] = []
        self.lines: list[str] = []
        """`kind/name created`, as kubectl has it."""

    async def place(self, objects: Sequence[Json]) -> Placed:
        """Definitions, the node agent, then the control plane, and once it is ready, its gateway.

        Pods that are injected before the node agent is ready would not start. Ends the command where something is refused.
        """
        kinds = [one for one in objects if one["kind"] == "CustomResourceDefinition"]
        gateway = [one for one in objects if _component(one) == INGRESS]
        agent = [one for one in objects if _component(one) == NODE_AGENT]
        own = [one for one in objects if one not in (*kinds, *gateway, *agent)]
        if kinds:
            with self._steps.step("kinds") as step:
                ours = await together((lambda one=one: self._put(one)) for one in kinds)  # type: ignore[misc]
                step.say(f"{sum(ours)} of {len(kinds)} definitions are ours")
        await self._part("node agent", agent, NODE_AGENT)
        await self._part("control plane", own, COMPONENT)
        await self._part("ingress gateway", gateway, INGRESS)
        if kinds and not self._is_dry:
            # The control plane follows kinds once they are served; users apply objects when we have returned.
            with self._steps.step("kinds: served"):
                await established(self._cluster, [one["metadata"]["name"] for one in kinds], _SETTLE_S)
        return Placed(self._counts, tuple(self._left))

    async def _part(self, name: str, objects: Sequence[Json], component: str) -> None:
        if not objects:
            return
        with self._steps.step(f"{name}: objects") as step:
            for number, one in enumerate(objects):
                step.say(f"{number} of {len(objects)}")
                await self._put(one)
            step.say(str(len(objects)))
        if self._is_dry or not self._wait_s:
            return
        for one in objects:
            kind = _AWAITED.get(one["kind"])
            if kind is not None and _component(one) == component:
                with self._steps.step(f"{name}: ready") as step:
                    meta = one["metadata"]
                    await rolled_out(self._cluster, meta["namespace"], meta["name"], self._left_s(), step, kind=kind)
        if any(one["kind"] == "MutatingWebhookConfiguration" for one in objects):
            with self._steps.step(f"{name}: asked about pods"):
                await admission(self._cluster, self._request.values.revision, self._left_s())

    def _left_s(self) -> float:
        return max(1.0, self._wait_s - self._steps.seconds)

    async def _put(self, one: Json) -> bool:
        """Apply an object unless it is another's; whether it is ours now."""
        kind, meta = one["kind"], one["metadata"]
        if kind in ("CustomResourceDefinition", "Namespace", "GatewayClass"):
            before = await self._read(one)
            if before is not None and not is_ours(before):
                self._left.append(f"{kind}/{meta['name']}")
                self._said(one, "left as it is")
                self._counts["left"] += 1
                return False
        if kind == "Deployment":
            one = await self._kept_replicas(one)
        try:
            word = await self._cluster.applied(one, dry_run=self._is_dry)
        except Refused as refused:
            if self._is_dry and refused.is_absent:
                word = "created"  # its namespace or kind would be made before
            else:
                _refused(one, refused)
        self._counts[word] += 1
        self._said(one, word)
        return True

    async def _read(self, one: Json) -> Json | None:
        resource = self._cluster.resource(one)
        meta = one["metadata"]
        return await self._cluster.read(resource, meta["name"], meta.get("namespace", "")) if resource else None

    async def _kept_replicas(self, one: Json) -> Json:
        """An autoscaler's number stands: applying again must not shrink what is under load."""
        before = await self._cluster.read(DEPLOYMENTS, one["metadata"]["name"], one["metadata"]["namespace"])
        values = self._request.values
        scaling = values.control_plane.autoscaling if _component(one) == COMPONENT else values.ingress.autoscaling
        if before is None or not scaling.enabled:
            return one
        spec = one["spec"]
        replicas = min(max(before["spec"].get("replicas", 1), scaling.min_replicas), scaling.max_replicas)
        return {**one, "spec": {**spec, "replicas": replicas}}

    def _said(self, one: Json, word: str) -> None:
        meta = one["metadata"]
        place = f" in {meta['namespace']}" if "namespace" in meta else ""
        self.lines.append(f"{one['kind'].lower()}/{meta['name']} {word}{place}")


def _component(one: Json) -> str:
    return str(one["metadata"].get("labels", {}).get(_COMPONENT, ""))


def _refused(one: Json, refused: Refused) -> NoReturn:
    what = f"{one['kind']} {one['metadata']['name']}"
    if refused.is_denied:
        refuse_with("TUL1106", Exit.FORBIDDEN, verb="apply", what=f"{what}: {refused.message}")
    refuse_with("TUL1112", what=what, reason=refused.message or refused.reason)


def noted(objects: Sequence[Json], choice: Choice, overlay: Json) -> list[Json]:
    """The objects, with what was chosen noted on the settings: `upgrade` lays it over the defaults of its own version."""
    note = json.dumps({"profile": choice.profile, "overlay": overlay}, sort_keys=True, separators=(",", ":"))
    made = []
    for one in objects:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"].partition("-")[0] == SETTINGS:
            one = {**one, "metadata": {**one["metadata"], "annotations": {CHOSEN: note}}}  # noqa: PLW2901
        made.append(one)
    return made
