"""``python -m execo``: the command ``execo``, for where it is not on the path."""

from __future__ import annotations

import sys

from .cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
