"""What is left of a reservation, and which combinations can still end in it."""

from __future__ import annotations

from collections.abc import Callable

from execo.host import Hosts
from execo.schedulers import Allocation

from .combination import HashableDict

__all__ = ["TimeLeft"]


class TimeLeft:
    """The time of one run. Belongs to one thread, but for :meth:`look`.

    :param hosts: an :class:`~execo.schedulers.Allocation` knows how long it lasts
    :param remaining: seconds that are left, None for no limit; must not block. Default: the
      allocation's
    :param takes: seconds that a combination takes at the most, None if that is not known. Default:
      as the longest so far
    """

    def __init__(
        self,
        hosts: Hosts = None,
        remaining: Callable[[], float | None] | None = None,
        takes: Callable[[HashableDict], float | None] | None = None,
    ) -> None:
        self._allocation = hosts if isinstance(hosts, Allocation) else None
        if remaining is None and self._allocation is not None:
            remaining = self._allocation.remaining
        self._remaining = remaining
        self._takes = takes
        self.longest = 0.0
        """Of those that are done."""

    @property
    def differs(self) -> bool:
        """Whether a combination may be too long where another one is not."""
        return self._takes is not None and self._remaining is not None

    def left(self) -> float | None:
        """Seconds; None: no limit."""
        return None if self._remaining is None else self._remaining()

    @property
    def over(self) -> bool:
        """Whether the hosts are not ours any more."""
        left = self.left()
        return left is not None and left <= 0

    def enough(self) -> bool:
        """Whether there is time for any combination, as far as is known."""
        left = self.left()
        return left is None or left > (0.0 if self.differs else self.longest)

    def fits(self, combination: HashableDict) -> bool:
        """Whether there is time for this one."""
        left = self.left()
        if left is None:
            return True
        takes = None if self._takes is None else self._takes(combination)
        return left > (self.longest if takes is None else takes)

    def took(self, seconds: float) -> None:
        """So long, for one that is done."""
        self.longest = max(self.longest, seconds)

    def look(self) -> None:
        """Something has failed: ask whether the hosts are still ours. May block for a while."""
        if self._allocation is not None:
            self._allocation.check()
