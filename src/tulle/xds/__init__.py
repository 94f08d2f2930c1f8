"""Envoy xDS: the schema, typed message builders, resource names and the ADS conversation (see README.md)."""
