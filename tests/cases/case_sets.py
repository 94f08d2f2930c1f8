"""The sets of manifests that the cases are tried with, and the names in them."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PUBLISHED = Path(os.environ.get("TULLE_CASES") or HERE.parents[2] / "shared" / "cases")


@dataclass(frozen=True)
class Cases:
    """One set of manifests, and the names that are in it."""

    name: str
    folder: Path
    host: str
    """Of the gateway in 01 to 04."""
    gateway: str
    app: str
    secret: str
    ab_host: str
    ab_namespace: str
    image: str
    external: str
    breaker_namespace: str
    permissive: str
    """The application that 08 leaves PERMISSIVE."""
    permissive_namespace: str

    def path(self, number: str) -> Path:
        """The file that begins so: `printed/01`, `whole/06`."""
        folder, _, prefix = number.partition("/")
        (found,) = (self.folder / folder).glob(f"{prefix}-*.yaml")
        return found

    @cached_property
    def ab_service(self) -> str:
        """Full name of the service of 05 to 07."""
        return f"{self.app}-svc.{self.ab_namespace}"


OWN = Cases(
    name="own",
    folder=HERE / "own",
    host="shop.example.test",
    gateway="front-gw",
    app="shop",
    secret="shop-cert",
    ab_host="ab.example.test",
    ab_namespace="green",
    image="registry.example.org/shop",
    external="pay.example.net",
    breaker_namespace="checkout",
    permissive="stock",
    permissive_namespace="warehouse",
)
VERBATIM = Cases(
    name="verbatim",
    folder=PUBLISHED,
    host="test.anahidapps.xyz",
    gateway="my-frontend-gw",
    app="myapp",
    secret="my-cert",
    ab_host="myapp.anahidapps.xyz",
    ab_namespace="ns2",
    image="my.repo.io/workload-myapp",
    external="paypal.apis.com",
    breaker_namespace="payment-system",
    permissive="inventory-system",
    permissive_namespace="inventory-space",
)
SETS = [OWN, *([VERBATIM] if PUBLISHED.is_dir() else [])]


@pytest.fixture(scope="module", params=SETS, ids=lambda found: found.name)
def cases(request: pytest.FixtureRequest) -> Cases:
    """Each set of manifests in turn."""
    found: Cases = request.param
    return found
