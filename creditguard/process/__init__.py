"""Facts about this operating system process: who it is, what a fork leaves behind, and its one background thread."""
