"""The version, for whoever needs it without the rest."""

from __future__ import annotations

__version__ = "0.1.0"
