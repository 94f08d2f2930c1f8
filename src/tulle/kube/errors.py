"""What goes wrong between us and the Kubernetes API, with codes of the catalogue (`TUL10xx`).

No I/O. Reasons are what the API server said (metav1.Status) or what the network said; they never hold a token.
"""

from http import HTTPStatus

from tulle.model.problems import NOWHERE, Problem, problem

_DENIED = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))


class KubeError(Exception):
    """Any coded problem of this room."""

    def __init__(self, found: Problem) -> None:
        super().__init__(f"{found.code} {found.text}")
        self._problem = found

    def problem(self) -> Problem:
        """The same as a value, for status and the command line."""
        return self._problem


class NoCluster(KubeError):  # noqa: N818 - named like its entry in the catalogue
    """There is no kubeconfig, or it names something that is not in it."""

    def __init__(self, reason: str) -> None:
        super().__init__(problem("TUL1002", NOWHERE, reason=reason))


class Unreachable(KubeError):  # noqa: N818 - as above
    """Nobody answered, or the connection broke: try again later."""

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(problem("TUL1001", NOWHERE, server=server, reason=reason))


class PortSilent(KubeError):  # noqa: N818 - as above
    """The API is there; at the port of the pod nobody listens, or the pod is gone."""

    def __init__(self, namespace: str, pod: str, port: int, reason: str) -> None:
        super().__init__(problem("TUL1008", NOWHERE, pod=f"{namespace}/{pod}", port=port, reason=reason))


class Refused(KubeError):  # noqa: N818 - as above
    """The API answered with an error (HTTP status of 400 and above, or a Status inside a watch)."""

    def __init__(
        self, verb: str, path: str, status: int, reason: str, message: str, *, retry_after_s: float = 0.0
    ) -> None:
        self.status = status
        code = "TUL1003" if self.is_denied else "TUL1004"
        text = message or reason or str(status)
        super().__init__(problem(code, NOWHERE, verb=verb, path=path, status=status, reason=text[:400]))
        self.reason = reason
        """The API's word, such as `Conflict`, `Expired`, `AlreadyExists`."""
        self.message = message
        self.retry_after_s = retry_after_s
        """How long the server asks us to wait; 0: it did not say."""

    @property
    def is_denied(self) -> bool:
        """Whether we lack the right, or were not recognised."""
        return self.status in _DENIED

    @property
    def is_absent(self) -> bool:
        """Whether there is no such object, or no such kind."""
        return self.status == HTTPStatus.NOT_FOUND
