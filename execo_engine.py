"""The package of execo 2 by its name: what is in it stands in ``execo/_engine_compat``."""

from __future__ import annotations

import importlib

from execo import _engine_compat

# With a path it is a package: execo_engine.sweep and the others are found there.
__path__ = _engine_compat.__path__

# Before the names: execo_engine.sweep is the function, whatever is imported later.
for _name in ("engine", "log", "sweep", "utils"):
    importlib.import_module(f"execo_engine.{_name}")

from execo._engine_compat import *  # noqa: E402, F403 - all its names, and no others

__all__ = _engine_compat.__all__
