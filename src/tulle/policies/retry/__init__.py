"""The policy kind `retry`: what it says (spec) and what Envoy does for it (envoy)."""
