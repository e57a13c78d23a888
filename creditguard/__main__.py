"""`python -m creditguard`."""

from __future__ import annotations

import sys

from creditguard.cli import main

sys.exit(main())
