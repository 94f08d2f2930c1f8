"""The policy kind `timeout`: what it says (spec) and what Envoy does for it (envoy)."""
