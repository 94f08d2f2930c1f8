"""The harness lies in this folder; its modules are imported by name here and in the folders beside."""
