"""``execo hosts``: node sets and groups."""

from __future__ import annotations

import argparse
import sys

from execo.hostset import fold, group_names

from .choosing import nodes_of
from .parser import Misuse
from .printing import printer

__all__ = ["hosts"]


def hosts(options: argparse.Namespace) -> int:
    """Print a node set, or the groups; returns the exit status."""
    if options.groups:
        return _list_groups(options)
    if not options.sets:
        raise Misuse("no node set: give one, such as node[1-4]")
    chosen = dict.fromkeys(one for text in _texts(options.sets) for one in nodes_of(text))
    for text in options.intersect or ():
        other = set(nodes_of(text))
        chosen = {one: None for one in chosen if one in other}
    without = {one for text in options.exclude or () for one in nodes_of(text)}
    left = [one for one in chosen if one not in without]
    if options.count:
        printer.text(f"{len(left)}\n")
    elif options.expand or options.separator is not None:
        separator = "\n" if options.separator is None else options.separator
        printer.text(separator.join(left) + "\n" if left else "")
    else:
        printer.text(f"{fold(left)}\n" if left else "")
    return 0


def _texts(sets: list[str]) -> list[str]:
    return [word for text in sets for word in (sys.stdin.read().split() if text == "-" else [text])]


def _list_groups(options: argparse.Namespace) -> int:
    for source in options.sets or [None]:
        for name in group_names(source):
            if options.groups > 1:
                printer.text(f"{name} {fold(nodes_of(name))}\n")
            else:
                printer.text(f"{name}\n")
    return 0
