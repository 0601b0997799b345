"""Commands as another user of a host (sudo, su, doas), and variables that nobody else sees."""

from __future__ import annotations

__all__: list[str] = []
