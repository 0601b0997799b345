"""Writing to the stdin of a process, with a pipe and with a terminal.

One should see three sorted words, and "a terminal".
"""

from __future__ import annotations

from execo import Process

# A pipe.
sort = Process("sort").start()
print("pear", file=sort)
sort.write("apple\nfig\n")
sort.close_stdin().wait()
print(sort.stdout.split())

# A terminal.
typed = Process("tty -s && echo a terminal", shell=True, pty=True).run()
print(typed.stdout.strip())
