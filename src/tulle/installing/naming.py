"""Names and labels that the objects of an installation share, with the blanks in them. Decision 0013 lists the names."""

from typing import Any, Final, NamedTuple

from tulle.installing.blueprint import Namespace, Node, Optional, Text, Value, words
from tulle.installing.release import VERSION

INSTALL: Final = "tulle.dev/install"
"""Label of everything that an installation, or its control plane, makes: the revision. `tulle uninstall` goes by it."""
SHARED: Final = "shared"
"""Value of INSTALL on what all revisions use: the namespace, the GatewayClass, kinds, trust roots."""
DEFAULT: Final = "default"
"""The name of the revision without a name."""
REVISION: Final = "istio.io/rev"
TAG: Final = "istio.io/tag"
CONTROL_PLANE: Final = "tulled"
TRUST_ROOT: Final = "tulle-ca-root-cert"
AUTHORITY: Final = "tulle-ca"
LEADER: Final = "tulled-leader"
SECRETS_RIGHT: Final = "tulle-gateway-secrets"
"""The right to read the Secrets of gateways, and its binding in each of their namespaces."""
CONFIG_MAPS_RIGHT: Final = "tulle-gateway-configmaps"
"""The right to read the ConfigMaps of a namespace, where policies for backends or Gateways name one."""
INJECTOR: Final = "tulle-injector"
VALIDATOR: Final = "tulle-validator"
SETTINGS: Final = "tulle"
GATEWAY_CLASS: Final = "tulle"
CONTROLLER: Final = "tulle.dev/gateway-controller"

_REVISION = Value("revision")
REV: Final = words(Optional(_REVISION, words(_REVISION), DEFAULT))
"""The revision as labels say it."""


def revised(name: str, *rest: Any) -> Text:
    """`name`, or `name-<revision>`, and what follows."""
    return words(name, Optional(_REVISION, words("-", _REVISION)), *rest)


def wide(name: str) -> Text:
    """A name among the cluster's own: with revision and namespace, so that two installations do not meet."""
    return revised(name, "-", Namespace())


class Names(NamedTuple):
    """The same names where the blanks are known: of one revision in one namespace."""

    namespace: str
    revision: str = DEFAULT

    def revised(self, name: str) -> str:
        """As `revised`."""
        return name if self.revision == DEFAULT else f"{name}-{self.revision}"

    def wide(self, name: str) -> str:
        """As `wide`."""
        return f"{self.revised(name)}-{self.namespace}"

    def tag(self, tag: str) -> str:
        """The webhook of a tag."""
        return f"tulle-tag-{tag}-{self.namespace}"


def labels(component: str, *, is_shared: bool = False) -> dict[Any, Node]:
    """What every object carries. Upgrades change the version, so selectors must not hold it."""
    return {
        "app.kubernetes.io/name": "tulle",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "tulle",
        "app.kubernetes.io/version": VERSION,
        INSTALL: SHARED if is_shared else REV,
        **({} if is_shared else {REVISION: REV}),
    }


def selector() -> dict[Any, Node]:
    """The pods of this revision's control plane."""
    return {"app": CONTROL_PLANE, REVISION: REV}


def metadata(name: Node, component: str, *, is_namespaced: bool = True, is_shared: bool = False) -> dict[Any, Node]:
    """The metadata of an object in the control plane's namespace, or of the cluster."""
    place = {"namespace": Namespace()} if is_namespaced else {}
    return {"name": name, **place, "labels": labels(component, is_shared=is_shared)}
