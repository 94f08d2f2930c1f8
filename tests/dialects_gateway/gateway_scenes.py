"""Scenes of the Gateway API: one folder per case, what goes in, and the plan, Envoy's resources, statuses and problems that come out.

`in.yaml` is a case of the compiler's goldens (`golden.compile_goldens`), with one more directive: `# deployed: NAMESPACE/GATEWAY IP`
stands for what the cluster says of a Gateway whose proxies run.
"""

from pathlib import Path
from typing import Any

import yaml

from golden.compile_goldens import Case as CompilerCase
from tulle.dialects.gateway_api.inputs import Deployed, GatewayAddress, deployed
from tulle.dialects.gateway_api.names import gateway_key
from tulle.dialects.gateway_api.status import status_of

HERE = Path(__file__).parent / "scenes"
SCENES = sorted(path.parent for path in HERE.glob("*/in.yaml"))
OUTPUTS = ("plan.yaml", "envoy.yaml", "status.yaml", "problems.txt")
CLUSTER = "Kubernetes"


class Scene(CompilerCase):
    """One folder, compiled and judged."""

    def __init__(self, folder: Path, *, check_purity: bool = False) -> None:
        super().__init__(folder, check_purity=check_purity)
        with self.world.db.edit() as tx:
            for name, words in self.directives:
                if name == "deployed":
                    place, address = words.split()
                    namespace, _, gateway = place.partition("/")
                    state = Deployed((GatewayAddress("IPAddress", address),), is_programmed=True)
                    tx.set(deployed, gateway_key(CLUSTER, namespace, gateway), state)

    @property
    def views(self) -> list[tuple[str, str]]:
        """Only those that are named: many scenes are about status alone."""
        named = [words for name, words in self.directives if name == "view"]
        return [(namespace, name) for namespace, _, name in (words.partition("/") for words in named)]

    def outputs(self) -> dict[str, str]:
        """Every output file's text."""
        found = super().outputs()
        del found["why.txt"]
        statuses = {}
        for key in sorted(self.world.source.objects):
            status = status_of(self.world.db, key)
            if status is not None:
                statuses[str(key)] = _short(status)
        found["status.yaml"] = yaml.safe_dump(statuses, sort_keys=False, width=140) if statuses else ""
        return found


def _short(value: Any) -> Any:
    """Conditions as one line each: `Accepted True Accepted`, with the message where there is one."""
    if isinstance(value, dict) and "observedGeneration" in value:
        said = f": {value['message']}" if value["message"] else ""
        return f"{value['type']} {value['status']} {value['reason']}{said}"
    if isinstance(value, dict):
        return {
            name: [one["kind"] for one in item]
            if name == "supportedKinds"
            else [one["name"] for one in item]
            if name == "supportedFeatures"
            else _short(item)
            for name, item in value.items()
        }
    return [_short(item) for item in value] if isinstance(value, list) else value
