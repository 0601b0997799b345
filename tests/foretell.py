"""What becomes of the processes of a program that nobody disturbs, told from the program alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from execo import Reason, Retry
from execo.policy import failure_limit
from program import SOON, Command, Tree

__all__ = ["foretell"]


@dataclass
class Fate:
    """How a process ends; ``unsure``: what comes first decides."""

    reason: Reason | None = None
    ok: bool = True
    unsure: bool = False


Fates = list[Fate]


def foretell(play: Any) -> Iterator[str]:
    """What came otherwise than it had to."""
    if play.disturbed:
        return
    fates = _of_tree(play.program.tree, None)
    for process, fate in zip(play.processes, fates, strict=True):
        if not fate.unsure:
            play.done["foretold"] += 1
            if (process.reason, process.ok) != (fate.reason, fate.ok):
                yield f"should end with {fate}, but {process.reason}, ok={process.ok}: {process!r}"


def _of_tree(tree: Tree, retry: Retry | None) -> Fates:
    retry = tree.retry or retry
    if tree.kind in ("local", "remote"):
        children = [[_of_command(command, retry)] for command in tree.commands]
    else:
        children = [_of_tree(part, retry) for part in tree.parts]
    limit = failure_limit(tree.max_failures, len(children))
    if limit is not None:
        one_by_one = tree.kind == "sequential" or tree.fanout == 1
        _give_up(children, limit, one_by_one)
    return [fate for child in children for fate in child]


def _give_up(children: list[Fates], limit: int, one_by_one: bool) -> None:
    """What is not started any more, since too many have failed."""
    failed, unsure = 0, False
    for child in children:
        if unsure:
            for fate in child:
                fate.unsure = True
        elif failed > limit:
            child[:] = [Fate(Reason.CANCELLED, False) for _ in child]
        unsure = unsure or any(fate.unsure for fate in child)
        failed += any(not fate.ok for fate in child)
    if not one_by_one and (failed > limit or unsure):
        # Which of them had started when it was too much?
        for child in children:
            for fate in child:
                fate.unsure = True


def _of_command(command: Command, retry: Retry | None) -> Fate:
    flags = command.flags
    for at, word in enumerate(command.fails):
        reason = Reason(word)
        if retry is None or retry.pause(reason, at + 1) is None:
            return Fate(reason, "ignore_error" in flags)
    if command.end in ("lost", "status lost", "output lost"):
        reasons = {"lost": Reason.CONNECT, "output lost": Reason.WRITE, "status lost": Reason.SPAWN}
        fate = Fate(reasons[command.end], "ignore_error" in flags)
    elif command.end == "never":
        # It has a timeout, for nobody disturbs it.
        return Fate(Reason.TIMEOUT, "ignore_timeout" in flags)
    elif command.code:
        reason = Reason.SIGNAL if command.code < 0 else Reason.EXIT_CODE
        fate = Fate(reason, "ignore_exit_code" in flags)
    else:
        fate = Fate()
    fate.unsure = command.timeout is not None and command.timeout <= SOON
    return fate
