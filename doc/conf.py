"""Settings of Sphinx; ``make doc`` in the folder above builds the documentation."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
# The configuration file of whoever builds has no place in the documentation.
os.environ["HOME"] = str(HERE / "_build")

project = "execo"
author = "The execo developers"
project_copyright = "The execo developers"
_version = re.search(
    r'^__version__ = "(.*)"$', (HERE.parent / "execo" / "__init__.py").read_text(), re.MULTILINE
)
version = release = _version[1] if _version else ""

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.inheritance_diagram",
    "sphinx.ext.intersphinx",
]
exclude_patterns = ["_build"]
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(paramiko|ClusterShell)\..*"),
    ("py:class", r"Figure|Path"),  # beside matplotlib, which need not be installed here
    ("py:class", r"re\.(Pattern|Match)"),  # classes without an entry in Python's index
    ("py:exc", r"NodeSetParseError"),  # of ClusterShell
    # What the workers of a user need not know of.
    ("py:class", r"execo\.clustershell\.(client|rsh_worker|pdsh_worker)\..*"),
]

html_theme = "furo"
html_title = f"execo {release}"
graphviz_output_format = "svg"
inheritance_graph_attrs = {"rankdir": "TB"}

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

# Debian's python3-doc puts Python's inventory on disk; nothing is fetched while building.
_inventories = sorted(Path("/usr/share/doc").glob("python3*/html/objects.inv"))
if _inventories:
    intersphinx_mapping = {"python": ("https://docs.python.org/3", str(_inventories[-1]))}
else:
    # Names of Python cannot be told from misspelled ones then: only ours are checked.
    nitpick_ignore_regex.append(("py:.*", r"(?!execo\b).*"))


def _public_bases(_app: Any, _name: str, _obj: type, _options: Any, bases: list[Any]) -> None:
    """A private class is nothing to link to: its own bases stand in for it."""

    def public(base: Any) -> list[Any]:
        if getattr(base, "__name__", "").startswith("_"):
            return [one for parent in base.__bases__ for one in public(parent)]
        return [base]

    bases[:] = [one for base in list(bases) for one in public(base)]


def _has_no_page(_app: Any, _env: Any, node: Any, text: Any) -> Any:
    """A type variable of ours has no page either, nor has what is private in a public signature; a
    misspelled name still fails."""
    target = node["reftarget"]
    module, _, name = target.rpartition(".")
    found = getattr(sys.modules.get(module or node.get("py:module", "")), name, None)
    private = found is not None and "._" in target
    return text if private or isinstance(found, TypeVar | ParamSpec) else None


def setup(app: Any) -> None:
    app.connect("autodoc-process-bases", _public_bases)
    app.connect("missing-reference", _has_no_page)
