"""The rules, pure: who may start, what a run has consumed, and the two flows of a run, as values and generators.

No I/O, no clock, no thread, and no import beyond the standard library's value types.
"""
