"""Facts about this operating system process: who it is, whether another is dead, and its timer thread."""
