"""Intent to plan to Envoy resources, per view. Knows no dialect's words, no proxy, no clock and no socket."""
