"""What the API server asks us: to put the sidecar into a pod, and to judge configuration.

Pure. The cluster starts without us: pods are asked about only in namespaces (or by labels of their own) that joined the mesh, never in
the system's namespaces or ours, never for the host's network; configuration is accepted while nobody answers. The control plane writes
`caBundle`; nothing here does, so that applying again leaves it. Selectors are Istio's. Source: Kubernetes, dynamic admission control.
"""

from typing import Any, Final

from tulle.installing.blueprint import Namespace, Node, Not, Spread, Text, Value, When
from tulle.installing.kinds import groups
from tulle.installing.naming import (
    CONTROL_PLANE,
    DEFAULT,
    INJECTOR,
    REV,
    REVISION,
    TAG,
    VALIDATOR,
    metadata,
    revised,
    wide,
)

INJECT: Final = "sidecar.istio.io/inject"
NAMESPACE_INJECTION: Final = "istio-injection"
INJECTION: Final = "injection.tulle.dev"
"""How the names of all our webhooks about pods end."""
_COMPONENT: Final = "webhook"
_UNNAMED: Final = Not(Value("revision"))
_BY_NAMESPACE: Final = Value("injectionWebhook.namespaces")


def _is(key: str, operator: str, *values: Node) -> dict[str, Any]:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


_NOT_REFUSED: Final = _is(INJECT, "NotIn", "false")
_NO_NAMESPACE_WORD: Final = (_is(NAMESPACE_INJECTION, "DoesNotExist"), _is(REVISION, "DoesNotExist"))


def _client(path: str) -> Node:
    service = {"namespace": Namespace(), "name": revised(CONTROL_PLANE), "path": path, "port": 443}
    return {"service": service}


_ASKED_BY_ANNOTATION: Final = {
    "name": "annotation",
    "expression": (
        f"has(object.metadata.annotations) && '{INJECT}' in object.metadata.annotations"
        f" && object.metadata.annotations['{INJECT}'].matches('(?i)^(y|yes|true|on)$')"
    ),
}
"""Selectors see labels only."""


def _injector(
    name: str, namespaces: tuple[Node, ...], pods: tuple[Node, ...], *conditions: dict[str, str]
) -> dict[str, Node]:
    never = _is("kubernetes.io/metadata.name", "NotIn", Namespace(), Spread(Value("injectionWebhook.neverNamespaces")))
    return {
        "name": f"{name}.{INJECTION}",
        "clientConfig": _client("/inject"),
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods"],
                "operations": ["CREATE"],
                "scope": "Namespaced",
            }
        ],
        "namespaceSelector": {"matchExpressions": [*namespaces, never]},
        "objectSelector": {"matchExpressions": list(pods)},
        "matchConditions": [
            {
                "name": "own-network",
                "expression": "!has(object.spec.hostNetwork) || !object.spec.hostNetwork",
            },
            *conditions,
        ],
        "matchPolicy": "Equivalent",
        "failurePolicy": Value("injectionWebhook.failurePolicy"),
        "timeoutSeconds": Value("injectionWebhook.timeoutSeconds"),
        "reinvocationPolicy": "Never",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }


def _for_the_unlabelled() -> tuple[Node, ...]:
    """Istio's `istio-injection=enabled`, and pods that ask without naming a revision, by label or by (its older) annotation."""
    return (
        When((_BY_NAMESPACE,), _injector("namespace", (_is(NAMESPACE_INJECTION, "In", "enabled"),), (_NOT_REFUSED,))),
        _injector("pod", _NO_NAMESPACE_WORD, (_is(INJECT, "In", "true"), _is(REVISION, "DoesNotExist"))),
        _injector(
            "annotation",
            _NO_NAMESPACE_WORD,
            (_is(INJECT, "DoesNotExist"), _is(REVISION, "DoesNotExist")),
            _ASKED_BY_ANNOTATION,
        ),
    )


def _for_revision(revision: Node) -> tuple[Node, ...]:
    """Namespaces and pods that name the revision (or tag)."""
    named = _is(REVISION, "In", revision)
    return (
        When(
            (_BY_NAMESPACE,),
            _injector("revision.namespace", (named, _is(NAMESPACE_INJECTION, "DoesNotExist")), (_NOT_REFUSED,)),
        ),
        _injector("revision.pod", _NO_NAMESPACE_WORD, (_NOT_REFUSED, named)),
    )


def _configuration(kind: str, meta: Node, webhooks: list[Node]) -> Node:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": meta,
        "webhooks": webhooks,
    }


def injector() -> Node:
    """The webhook of this revision."""
    unlabelled = [When((_UNNAMED, *_tests(node)), _inner(node)) for node in _for_the_unlabelled()]
    return _configuration(
        "MutatingWebhookConfiguration",
        metadata(wide(INJECTOR), _COMPONENT, is_namespaced=False),
        # An item without a condition leads: a list of conditional items alone would be `null` in a chart.
        [*_for_revision(REV)[1:], *_for_revision(REV)[:1], *unlabelled],
    )


def _tests(node: Node) -> tuple[Any, ...]:
    return node.tests if isinstance(node, When) else ()


def _inner(node: Node) -> Node:
    return node.then if isinstance(node, When) else node


def tag(name: str) -> Node:
    """The webhook of a tag: namespaces and pods that name the tag get what the revision (in the values) gives.

    The tag `default` is also that of namespaces with `istio-injection=enabled`.
    """
    meta = metadata(Text((f"tulle-tag-{name}-", Namespace())), "tag", is_namespaced=False)
    meta = {**meta, "labels": {**meta["labels"], TAG: name}}
    webhooks = [*_for_revision(name), *(_for_the_unlabelled() if name == DEFAULT else ())]
    return _configuration("MutatingWebhookConfiguration", meta, webhooks)


def tag_rights(name: str) -> tuple[Node, ...]:
    """The right of the tagged revision to keep the certificate of the tag's webhook."""
    called = Text((f"tulle-tag-{name}-", Namespace()))
    meta = metadata(called, "tag", is_namespaced=False)
    meta = {**meta, "labels": {**meta["labels"], TAG: name}}
    group = "rbac.authorization.k8s.io"
    rule = {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"],
        "verbs": ["get", "patch"],
        "resourceNames": [called],
    }
    subject = {"kind": "ServiceAccount", "name": revised(CONTROL_PLANE), "namespace": Namespace()}
    return (
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": called},
            "subjects": [subject],
        },
    )


def _validator(name: str, objects: Node) -> dict[str, Node]:
    rules = [
        {
            "apiGroups": [group],
            "apiVersions": ["*"],
            "resources": list(resources),
            "operations": ["CREATE", "UPDATE"],
            "scope": "*",
        }
        for group, resources in (*groups(), ("gateway.networking.k8s.io", ("*",)))
    ]
    return {
        "name": f"{name}.validation.tulle.dev",
        "clientConfig": _client("/validate"),
        "rules": rules,
        "objectSelector": {"matchExpressions": [objects]},
        "matchPolicy": "Equivalent",
        "failurePolicy": Value("validationWebhook.failurePolicy"),
        "timeoutSeconds": Value("validationWebhook.timeoutSeconds"),
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }


def validator() -> Node:
    """Judges configuration: what names this revision, and for the one without a name what names none."""
    return _configuration(
        "ValidatingWebhookConfiguration",
        metadata(wide(VALIDATOR), _COMPONENT, is_namespaced=False),
        [
            _validator("revision", _is(REVISION, "In", REV)),
            When((_UNNAMED,), _validator("all", _is(REVISION, "DoesNotExist"))),
        ],
    )


def objects() -> tuple[Node, ...]:
    """Both configurations."""
    on = Value("controlPlane.enabled")
    return (
        When((on, Value("injectionWebhook.enabled")), injector()),
        When((on, Value("validationWebhook.enabled")), validator()),
    )
