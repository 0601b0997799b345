"""The watchdog: a small shell that ends our local children when the script is gone.

A script that is killed with SIGKILL cannot clean up. The watchdog is a process in a session of its
own which blocks on a pipe that only the script holds. At its end of file it reads the table of
running children, a file without a name that both share, and ends them: TERM, half a second, KILL.
Keeping the table costs three small writes a process and wakes nobody.

It ends what was running, with everything in the sessions of these children. What a process that
had ended left behind on purpose is not in the table any more. Then it removes the temporary files
and folders that are in the table.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import subprocess
import tempfile
import threading
from collections import defaultdict

from .stream import Descriptor

__all__ = ["Watchdog"]

# A slot holds one word: nothing, the pid of a child (the leader of its session), or "pipe:N" for
# one whose pid is not known yet: the script may die between the fork and the note of its result,
# and then the pipe that is the child's stderr tells which process it was. "path:NAME:" is a file or
# folder, in as many slots as it takes. Without its end it was cut short by the script's, and is
# passed over: to remove another name would be worse.
SLOT = 32
_FREE = b" " * (SLOT - 1) + b"\n"

# Started by a shell that goes at once, so that it is no child of ours: a program that waits for all
# its children would wait for ever. The shell would give it /dev/null as stdin, hence the detour.
# The script comes in the environment, so that a list of processes shows a line of it and not all.
START = """exec 3<&0; /bin/sh -c 'eval "$EXECO_SCRIPT"' execo-watchdog <&3 3<&- &"""

SCRIPT = r"""
trap '' HUP INT TERM QUIT PIPE TSTP
read -r line && exit 0            # an orderly end says so first
exec 3<&1 1>/dev/null 2>&1
sessions= paths=
for word in $(cat <&3); do
    case $word in
    path:*:) word=${word#path:}
        paths="$paths ${word%:}"
        continue ;;
    path:*) continue ;;
    pipe:*) inode=${word#pipe:}
        word=$(ls -l /proc/[0-9]*/fd/2 |
            sed -n "s,.* /proc/\([0-9]*\)/fd/2 -> pipe:\[$inode\]\$,\1,p") ;;
    esac
    for pid in $word; do sessions="$sessions $pid"; done
done
[ -n "$sessions$paths" ] || exit 0
sessions="$sessions "
members() {                       # every process of these sessions, where /proc tells
    cat /proc/[0-9]*/stat |
    sed -n 's/^\([0-9]*\) (.*) [A-Za-z] [-0-9]* [-0-9]* \([0-9]*\) .*/\1 \2/p' |
    while read -r pid session; do
        case $sessions in *" $session "*) echo "$pid" ;; esac
    done
}
[ "$sessions" = " " ] || for signal in TERM KILL; do
    for pid in $sessions; do kill -s $signal -- -$pid; done
    for pid in $(members); do kill -s $signal $pid; done
    [ $signal = KILL ] || sleep 0.5 || sleep 1
done
for path in $paths; do            # the point keeps line feeds at the end
    path=$(printf %s "$path" | sed 's/%/\\0/g')
    path=$(printf %b. "$path")
    path=${path%.}
    case ${path##*/} in execo-*|.execo-*) rm -rf "$path" ;; esac
done
"""

_CODED = re.compile(rb"[^A-Za-z0-9/._-]")


class Watchdog:
    """The watchdog of this process and the table that it reads. Methods may be called from any
    thread; they block no longer than a write to a file in memory.

    :raises OSError: if it cannot be started
    """

    def __init__(self) -> None:
        self._free: list[int] = []
        self._new = itertools.count()  # next() is atomic, += is not
        self._free_runs: defaultdict[int, list[int]] = defaultdict(list)  # length -> first slots
        self._closing = self._gone = False
        self._gate = threading.Lock()  # nothing is claimed between its last look and its end
        if hasattr(os, "memfd_create"):
            self._table = Descriptor(os.memfd_create("execo-children", os.MFD_CLOEXEC))
        else:
            with tempfile.TemporaryFile() as file:
                self._table = Descriptor(os.dup(file.fileno()))
        ours = theirs = -1
        try:
            theirs, ours = os.pipe()
            starter = subprocess.Popen(
                ["/bin/sh", "-c", START],
                stdin=theirs,
                stdout=self._table.fd,
                stderr=subprocess.DEVNULL,
                cwd="/",
                # The words of ls(1), which the script reads, must not be somebody's language.
                env={**os.environ, "LC_ALL": "C", "EXECO_SCRIPT": SCRIPT},
                start_new_session=True,
            )
            if starter.wait():
                raise BlockingIOError(errno.EAGAIN, "its shell could not fork")
        except OSError:
            self._table.close()
            if ours >= 0:
                os.close(ours)
            raise
        finally:
            if theirs >= 0:
                os.close(theirs)
        self._line = Descriptor(ours)

    def claim(self, inode: int) -> int:
        """A slot for a child that is about to start, whose stderr is the pipe ``inode``."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = next(self._new)
        self._note(slot, b"pipe:%d" % inode)
        return slot

    def started(self, slot: int, pid: int) -> None:
        """The child has this pid now."""
        self._note(slot, b"%d" % pid)

    def release(self, slot: int) -> None:
        """The child is gone, or was never started."""
        self._note(slot, b"")
        self._free.append(slot)

    def claim_path(self, path: str) -> tuple[int, int]:
        """Slots for a file or folder that is removed if the script is lost: the first, and how
        many. Its name has to begin with ``execo-`` or ``.execo-``.

        :raises OSError: the script is at its end: nobody would remove it any more
        """
        coded = _CODED.sub(lambda found: b"%%%03o" % ord(found[0]), os.fsencode(path))
        word = b"path:%s:" % coded
        count = len(word) // SLOT + 1
        with self._gate:
            if self._gone:
                raise OSError(errno.ESHUTDOWN, "this script is at its end", path)
            return self._claim_run(word, count), count

    def _claim_run(self, word: bytes, count: int) -> int:
        """So many slots in a row."""
        try:
            slot = self._free_runs[count].pop()
        except IndexError:
            slots = [next(self._new) for _ in range(count)]
            while slots[-1] - slots[0] != count - 1:  # another thread has taken one in between
                self._free += slots
                slots = [next(self._new) for _ in range(count)]
            slot = slots[0]
        self._note(slot, word, count)
        return slot

    def release_path(self, slot: int, count: int) -> None:
        """It is gone, or stays."""
        self._note(slot, b"", count)
        self._free_runs[count].append(slot)
        if self._closing:
            self.close()

    def close(self) -> None:
        """Send the watchdog away, which then ends nobody.

        If a child is in the table all the same, in the middle of its start for one, the watchdog
        is left to do its work. If only files are, it leaves when these are gone.
        """
        self._closing = True
        with self._gate, contextlib.suppress(OSError):
            words = os.pread(self._table.fd, os.fstat(self._table.fd).st_size, 0).split()
            if words and all(word.startswith(b"path:") for word in words):
                return
            self._gone = True
            if not words:
                os.write(self._line.fd, b"bye\n")
        self._line.close()
        self._table.close()

    def _note(self, slot: int, word: bytes, count: int = 1) -> None:
        if self._table.open:
            text = word.ljust(count * SLOT - 1) + b"\n" if word else _FREE * count
            os.pwrite(self._table.fd, text, slot * SLOT)
