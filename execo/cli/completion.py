"""``execo completion``."""

from __future__ import annotations

import argparse

from .printing import printer, tell

__all__ = ["completion"]


def completion(parser: argparse.ArgumentParser, shell: str) -> int:
    """Print the completion of ``parser`` for bash or zsh; 1 if shtab is missing."""
    try:
        import shtab
    except ImportError:
        tell("completion needs shtab: pip install 'execo[cli]'")
        return 1
    printer.text(shtab.complete(parser, shell=shell) + "\n")
    return 0
