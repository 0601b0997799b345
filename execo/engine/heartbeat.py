"""Says now and then that this process is alive, to other machines, on a thread of its own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from execo.log import logger

__all__ = ["Heartbeat"]


class Heartbeat:
    """Calls a method every ``pause`` seconds, from :meth:`start` on until it gives False, or its
    object is gone. For one thread at a time.

    It can say nothing while another thread holds the interpreter's lock: a long call into a library
    that does not release it is silence.

    :param beat: False if there is nothing more to say
    """

    def __init__(self, pause: float, beat: Callable[[], bool]) -> None:
        self.pause = pause
        self._end = threading.Event()
        self._beat = weakref.WeakMethod(beat, lambda _: self._end.set())
        self._runs = False

    def start(self) -> None:
        """Go on, or begin."""
        if self._runs:
            return
        self._runs = True
        try:
            threading.Thread(target=self._run, name="execo-sweeper", daemon=True).start()
        except RuntimeError:  # the interpreter ends, or there are too many threads
            self._runs = False
        except BaseException:
            self._runs = False
            raise

    def stop(self) -> None:
        """At once; for good."""
        self._end.set()

    def pausing(self) -> None:
        """Of the method, before it gives False: the next :meth:`start` begins anew."""
        self._runs = False

    def _run(self) -> None:
        while not self._end.wait(self.pause):
            beat = self._beat()
            try:
                if beat is None or not beat():
                    return
            except OSError as exc:
                # The folder is out of reach for now: others may take what is held here.
                logger.debug("no sign of life: %s", exc)
            del beat
