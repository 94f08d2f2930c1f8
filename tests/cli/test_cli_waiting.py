"""When `tulle install` says that pods are asked about: the API server's own answers to a pod on trial."""

import json
from typing import Any

import pytest

from tulle.cli import awaiting, output
from tulle.kube.errors import Refused

UNREACHED = 'Internal error occurred: failed calling webhook "pod.injection.tulle.dev": dial tcp: connection refused'


class Asked:
    """A cluster whose API answers so often that it cannot call the webhook, and then something else."""

    def __init__(self, refusals: int, last: Refused | None = None) -> None:
        self.access = self
        self.left, self.last = refusals, last
        self.sent: list[tuple[str, str, Any, Any]] = []

    async def send(self, verb: str, path: str, *, query: Any, body: bytes) -> None:
        self.sent.append((verb, path, query, json.loads(body)))
        if len(self.sent) <= self.left:
            raise Refused(verb, path, 500, "InternalError", UNREACHED)
        if self.last is not None:
            raise self.last


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awaiting, "_POLL_S", 0.01)


@pytest.mark.parametrize("revision", ["", "canary"])
async def test_it_asks_until_there_is_an_answer_and_makes_nothing(revision: str) -> None:
    cluster = Asked(refusals=2)
    await awaiting.admission(cluster, revision, 5)  # type: ignore[arg-type]
    assert len(cluster.sent) == 3
    verb, path, query, trial = cluster.sent[-1]
    assert (verb, path, query) == ("POST", "/api/v1/namespaces/default/pods", {"dryRun": "All"})
    assert trial["metadata"]["labels"].get("istio.io/rev", "") == revision


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, 'violates PodSecurity "restricted"'),
        (500, 'Internal error occurred: failed calling webhook "pods.other.example": dial tcp: connection refused'),
    ],
)
async def test_a_refusal_of_the_pod_itself_is_an_answer(status: int, message: str) -> None:
    refused = Refused("POST", "/api/v1/namespaces/default/pods", status, "Said", message)
    cluster = Asked(refusals=1, last=refused)
    await awaiting.admission(cluster, "", 5)  # type: ignore[arg-type]
    assert len(cluster.sent) == 2


async def test_who_is_never_reached_is_told_why() -> None:
    with pytest.raises(output.Refused, match="connection refused") as refused:
        await awaiting.admission(Asked(refusals=1000), "", 0.05)  # type: ignore[arg-type]
    assert refused.value.code == "TUL1136"
    assert "15017" in refused.value.advice
