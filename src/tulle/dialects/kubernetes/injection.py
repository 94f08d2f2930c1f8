"""Whether a pod gets a sidecar: Istio's precedence of labels and annotations, as a pure function.

The same answer for a pod template on its way in (the webhook, the local supervisor) and for a pod that runs. Knows no
database. Source: Istio, "Sidecar Injection", controlling the injection policy; gateway injection.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

INJECT: Final = "sidecar.istio.io/inject"
REVISION: Final = "istio.io/rev"
NAMESPACE_INJECTION: Final = "istio-injection"
TEMPLATES: Final = "inject.istio.io/templates"
SIDECAR_CONTAINER: Final = "istio-proxy"
RUNNING: Final = "tulle.dev/sidecar"
"""Annotation of a running pod, `true` or `false`: what was in fact started. It wins over what should have been."""
INJECTED: Final = "sidecar.istio.io/status"
"""Istio's injector leaves this annotation."""

DEFAULT_REVISION: Final = "default"
"""What is meant where no revision is named."""

_YES: Final = frozenset({"y", "yes", "true", "on"})


class Role(StrEnum):
    """What the injected proxy is for."""

    NONE = "none"
    SIDECAR = "sidecar"
    GATEWAY = "gateway"


class Injection(Struct, frozen=True):
    """The decision, with the words that made it (for `explain` and `check`)."""

    role: Role
    because: str


def injects(
    namespace_labels: Mapping[str, str],
    pod_labels: Mapping[str, str],
    pod_annotations: Mapping[str, str],
    *,
    host_network: bool = False,
    images: Iterable[str] = (),
    revisions: Collection[str] | None = None,
) -> Injection:
    """The role of the proxy a pod gets.

    The pod's label wins over its annotation (legacy), both over the namespace; `istio-injection=disabled` on the
    namespace wins over a pod that asks. Unlike Istio's webhook, the annotation alone is enough in a namespace without
    labels. A pod whose image is `auto` cannot run without injection: a gateway unless it refuses.

    `revisions`: the names this control plane goes by, `default` if it is that; None: every revision is ours.
    """
    if host_network:
        return Injection(Role.NONE, "hostNetwork")
    asked = pod_labels.get(INJECT, pod_annotations.get(INJECT, "")).lower()
    if asked and asked not in _YES:
        return Injection(Role.NONE, f"{INJECT}={asked}")
    revision = revision_asked(namespace_labels, pod_labels)
    if revisions is not None and revision not in revisions:
        return Injection(Role.NONE, f"the revision asked is {revision}")
    gateway = _gateway_reason(pod_labels, pod_annotations, images)
    if gateway:
        return Injection(Role.GATEWAY, gateway)
    namespace = namespace_labels.get(NAMESPACE_INJECTION, "")
    if namespace and namespace != "enabled":
        return Injection(Role.NONE, f"namespace {NAMESPACE_INJECTION}={namespace}")
    for holder, word, value in (
        ("pod", INJECT, asked),
        ("namespace", NAMESPACE_INJECTION, namespace),
        ("namespace", REVISION, namespace_labels.get(REVISION, "")),
        ("pod", REVISION, pod_labels.get(REVISION, "")),
    ):
        if value:
            return Injection(Role.SIDECAR, f"{holder} {word}={value}")
    return Injection(Role.NONE, "nothing asks for it")


def revision_asked(namespace_labels: Mapping[str, str], pod_labels: Mapping[str, str]) -> str:
    """Whose proxy a pod would get: its namespace's word wins, and `istio-injection` means the default revision."""
    if namespace_labels.get(NAMESPACE_INJECTION):
        return DEFAULT_REVISION
    return namespace_labels.get(REVISION) or pod_labels.get(REVISION) or DEFAULT_REVISION


def _gateway_reason(labels: Mapping[str, str], annotations: Mapping[str, str], images: Iterable[str]) -> str:
    templates = [word.strip() for word in annotations.get(TEMPLATES, "").split(",")]
    if "gateway" in templates:
        return f"{TEMPLATES}=gateway"
    istio = labels.get("istio", "")
    if istio.endswith("gateway") and any(image.rpartition("/")[2] in ("auto", "auto:latest") for image in images):
        return f"istio={istio} with image auto"
    return ""
