"""Istio's kinds: what their fields are (`schema_*`), what is wrong with them (`check_*`), what they mean (the queries)."""
