"""The I/O thread and what it runs on: descriptors, child processes, threads for user code.

Private. Everything that touches a descriptor, a pid or a thread of ours is in here, and nothing
in here knows what a process or an action is.
"""

from __future__ import annotations
