"""``python -m adjoin.cli``, for where the script is not on PATH."""

from __future__ import annotations

import sys

from adjoin.cli import main

if __name__ == "__main__":
    sys.exit(main())
