"""The policy kind `headers`: what it says (spec) and what Envoy does for it (envoy)."""
