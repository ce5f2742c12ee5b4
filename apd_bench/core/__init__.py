"""What everything stands on: errors, registries, specs and their identity, files, text. No torch."""
