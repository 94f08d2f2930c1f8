"""Build hook: puts the Envoy API, read out of the pinned Envoy binary, into the wheel (design: the schema)."""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_EXTRACT = Path("src/tulle/xds/extract.py")


class EnvoySchemaHook(BuildHookInterface):
    """Runs `tulle.xds.extract` from the source tree: the package itself is not importable while it is being built."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        """Write the schema, always anew: an older one in the tree may be of another Envoy."""
        spec = importlib.util.spec_from_file_location("tulle_xds_extract", Path(self.root) / _EXTRACT)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(_EXTRACT)
        extract = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(extract)
        extract.write()
