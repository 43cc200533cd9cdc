"""Where things are: the project, and the folder for everything that a run writes."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).parent.parent
# BOOKSHOP_OUT lets several runs go on side by side, as the tests do.
OUT = Path(os.environ.get("BOOKSHOP_OUT", PROJECT / "out")).absolute()
