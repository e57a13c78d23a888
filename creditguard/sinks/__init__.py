"""Where events go: the host program's own log, or stderr."""
