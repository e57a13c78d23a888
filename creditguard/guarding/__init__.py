"""The face: `guard`, `Run`, and the wiring of both from arguments and settings."""
