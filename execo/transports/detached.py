r"""The shell text in front of a command that is to outlive the script.

When a script is gone, nobody reads what its commands print: the next line would end them with
SIGPIPE. So a detached command writes into named pipes, each of which a *relay* reads: a ``cat``
which passes on what comes for as long as somebody takes it, and then a ``cat`` which drops it. Its
stdin is empty from the start. So nothing changes for the command when the script ends.

The shell makes the pipes, removes their names as soon as they are open, and then becomes the
command: process id, exit code and signals are the command's own. The relays ignore the signals that
are meant for it, and end with the last process that holds its output open.
"""

from __future__ import annotations

__all__ = ["DETACHED", "DETACH_EXIT", "DETACH_MESSAGE"]

DETACH_MESSAGE = "execo: cannot make the pipes of a detached command: "
"""How the line on stderr begins when there is no folder for them; why follows."""

DETACH_EXIT = 126
"""The exit code of a command that was not run because of that (a shell's "cannot execute")."""

# The programs are looked for where systems have them, too: the command's PATH may be anything.
_HERE = 'PATH="$PATH:/usr/bin:/bin"'
# A background job may ignore INT alone; the trap comes after the pipe is open, so that a relay
# whose command died before it had opened its end does not wait for it for ever.
_RELAY = f'{{ trap "" HUP INT QUIT TERM PIPE; {_HERE}; cat; exec cat >/dev/null; }}'

# Each relay is started in two steps, and is no child of the command, which may wait for all of its
# children.
DETACHED = (
    f"execo_pipes=$({_HERE}; umask 077; "
    'p=$(mktemp -d "${TMPDIR:-/tmp}/execo.XXXXXXXX" 2>&1) && mkfifo "$p/1" "$p/2" 2>&1 && '
    'echo "$p" || { echo "$p"; exit 1; }) || '
    f'{{ printf "{DETACH_MESSAGE}%s\\n" "$execo_pipes" >&2; exit {DETACH_EXIT}; }}; '
    f'( {_RELAY} <"$execo_pipes/1" 2>/dev/null & ); '
    f'( {_RELAY} <"$execo_pipes/2" >&2 2>/dev/null & ); '
    'exec </dev/null >"$execo_pipes/1" 2>"$execo_pipes/2"; '
    f'({_HERE}; exec rm -rf "$execo_pipes"); unset execo_pipes; '
)
"""For /bin/sh, as the first words of a script that then becomes the command."""
