"""What a run has given: output, return codes and timeouts, by worker and node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ClusterShell.MsgTree import MsgTree, MsgTreeElem

from .errors import TaskMsgTreeError

if TYPE_CHECKING:
    from .client import Client
    from .worker import Worker

__all__ = ["Results", "checked_keys"]


class Results:
    """Those of one run of a task; its thread writes them.

    :param wanted: whether the output of a stream is gathered
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._trees: dict[str, MsgTree] = {}
        self._rcs: dict[Worker, dict[Any, int]] = {}
        self._timeouts: dict[Worker, dict[Any, None]] = {}
        self._workers: dict[Any, dict[Worker, None]] = {}  # of each key
        self.max_rc: int | None = None

    def clear(self) -> None:
        """Forget all."""
        for kept in (self._trees, self._rcs, self._timeouts, self._workers):
            kept.clear()
        self.max_rc = None

    # -- while it runs ------------------------------------------------------------------------

    def taker(self, worker: Worker, key: Any, sname: str) -> Callable[[Any, bytes], object] | None:
        """Takes ``((worker, key), line)``; None if this stream is not gathered."""
        if not self._wanted(sname):
            return None
        tree = self._trees.get(sname)
        if tree is None:
            tree = self._trees[sname] = MsgTree()
        self._note(worker, key)
        take: Callable[[Any, bytes], object] = tree.add
        return take

    def set_rc(self, worker: Worker, key: Any, rc: int) -> None:
        """The command has ended. Of several of one worker and key, the largest counts."""
        rcs = self._rcs.setdefault(worker, {})
        rcs[key] = max(rc, rcs.get(key, rc))
        self._note(worker, key)
        if self.max_rc is None or rc > self.max_rc:
            self.max_rc = rc

    def add_timeout(self, worker: Worker, key: Any) -> None:
        """Its time is over."""
        self._timeouts.setdefault(worker, {})[key] = None

    def add_timeouts(self, client: Client) -> None:
        """The time of all its nodes is over."""
        for node in client.nodes:
            self.add_timeout(client.worker, node)

    def _note(self, worker: Worker, key: Any) -> None:
        self._workers.setdefault(key, {})[worker] = None

    # -- output -------------------------------------------------------------------------------

    def tree(self, sname: str) -> MsgTree:
        """The output of all.

        :raises TaskMsgTreeError: if it is not gathered
        """
        found = self._trees.get(sname)
        if found is None:
            if not self._wanted(sname):
                raise TaskMsgTreeError(f"{sname}_msgtree not set: its output is not gathered")
            found = self._trees[sname] = MsgTree()
        return found

    def text(self, worker: Worker, key: Any, sname: str) -> bytes | None:
        """The output of one, None if there is none.

        :raises TaskMsgTreeError: see :meth:`tree`
        """
        found = self.tree(sname).get((worker, key))
        if found is None:
            return None
        text: bytes = found.message()
        return text

    def text_of_key(self, key: Any, sname: str) -> bytes:
        """The output of all workers of this key, one after the other.

        :raises TaskMsgTreeError: see :meth:`tree`
        """
        self.tree(sname)
        return b"".join(self.text(w, key, sname) or b"" for w in self._workers.get(key, ()))

    def walk(
        self, sname: str, keys: Collection[Any] | None, worker: Worker | None = None
    ) -> Iterator[tuple[MsgTreeElem, list[Any]]]:
        """Identical outputs and the keys that they are of.

        :param keys: of these alone; None = of all
        :param worker: of this one alone; None = of all
        :raises TaskMsgTreeError: see :meth:`tree`, at the call
        """
        tree = self.tree(sname)

        def match(source: tuple[Worker, Any]) -> bool:
            return (worker is None or source[0] is worker) and (keys is None or source[1] in keys)

        found: Iterator[tuple[MsgTreeElem, list[Any]]] = tree.walk(
            None if worker is None and keys is None else match, lambda source: source[1]
        )
        return found

    def flush(self, sname: str, worker: Worker | None = None) -> None:
        """Forget output."""
        if sname in self._trees:
            if worker is None:
                self._trees[sname].clear()
            else:
                self._trees[sname].remove(lambda source: source[0] is worker)

    # -- return codes and timeouts ------------------------------------------------------------

    def rc(self, worker: Worker, key: Any) -> int:
        """That of one.

        :raises KeyError: if there is none
        """
        return self._rcs.get(worker, {})[key]

    def rc_of_key(self, key: Any) -> int:
        """The largest of those of this key.

        :raises KeyError: if there is none
        """
        found = [self._rcs.get(worker, {}).get(key) for worker in self._workers.get(key, ())]
        return max(_known(found, key))

    def rcs(self, worker: Worker | None = None) -> dict[int, list[Any]]:
        """The keys of each return code."""
        by_rc: dict[int, list[Any]] = {}
        for one in self._rcs if worker is None else (worker,):
            for key, rc in self._rcs.get(one, {}).items():
                by_rc.setdefault(rc, []).append(key)
        return by_rc

    def rcs_of(self, worker: Worker) -> dict[Any, int]:
        """The return code of each key of a worker."""
        return dict(self._rcs.get(worker, {}))

    def timeouts(self, worker: Worker | None = None) -> list[Any]:
        """The keys whose time was over."""
        return [
            key
            for one in (self._timeouts if worker is None else (worker,))
            for key in self._timeouts.get(one, ())
        ]


def _known(found: Iterable[int | None], key: Any) -> list[int]:
    known = [rc for rc in found if rc is not None]
    if not known:
        raise KeyError(key)
    return known


def checked_keys(keys: Any) -> Any:
    """The keys to look for.

    :raises TypeError: for a text, which would be taken for its characters
    """
    if isinstance(keys, (str, bytes)):
        raise TypeError("Sequence of keys/nodes expected for 'match_keys'.")
    return keys
