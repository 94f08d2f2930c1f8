"""What users write, each dialect in its own folder: objects in, intent out, problems beside it."""
