"""The policy kind `authorization`: what it says (spec) and what Envoy does for it (envoy)."""
