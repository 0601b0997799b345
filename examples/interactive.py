#!/usr/bin/env python3
"""Talk to a process: through its stdin, and through a terminal of its own.

You should see the sorted words, then what a shell says about its terminal.
"""

from __future__ import annotations

from execo import Process

with Process("sort").start() as sort:
    for word in ("pear", "apple", "cherry"):
        print(word, file=sort)  # a process is written to like a file
    sort.close_stdin()  # sort waits for the end of its input
    sort.wait(check=True)
print(sort.stdout, end="")

# With pty=True the process believes that a person sits before it.
shell = Process("sh", pty=True).start()
shell.write("test -t 0 && echo 'stdin is a terminal'\n")
shell.close_stdin()  # as Ctrl-D does
shell.wait(check=True)
print(shell.stdout, end="")
