"""The Gateway API dialect: its objects as gateways and route sets of the intent, and their status (see README.md)."""
