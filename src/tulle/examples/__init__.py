"""Applications that travel with tulle, ready to run in it."""
