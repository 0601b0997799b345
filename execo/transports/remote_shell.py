r"""The texts that are sent to the login shells of hosts: words, commands, and the guard.

A command goes to a host as one text, which the user's login shell reads: ``$SHELL -c TEXT``. These
texts mean the same to sh, dash, bash, zsh, ksh, busybox sh, csh, tcsh and fish. Nothing here runs
anything: the transports send the texts.

- A command's folder and environment are set by a prefix (:func:`command_text`).
- Its processes are found later by their *mark*, ``EXECO_MARK=<nonce>.<number>.<pid>[.d]`` in their
  environment: the connection's nonce, the command's number, the process id of its leader, and
  ``d`` where it is detached. What clears its environment (``env -i``) or writes over it is not
  found any more.
- The *guard* (:func:`guard_text`) is a script on a channel of its own, one per connection: it
  signals a command's processes when it is told to, and ends what had not ended when the client
  is lost. It needs Linux's /proc.

csh reads words up to about 8 000 bytes, and Linux one text up to 128 KiB: what is longer fails
there, with the shell's or the system's own message.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from .detached import DETACHED

__all__ = [
    "CWD_EXIT",
    "CWD_MESSAGE",
    "MARK",
    "ORDER_BYE",
    "ORDER_END",
    "ORDER_END_FIRST",
    "ORDER_RUN",
    "Hello",
    "Mark",
    "command_text",
    "guard_text",
    "join",
    "kill_order",
    "parse_hello",
    "quote",
    "script_text",
]

MARK = "EXECO_MARK"
"""The environment variable that every process of a command bears."""

CWD_MESSAGE = "execo: cannot change to folder "
"""How the line on stderr begins when the folder cannot be entered; the folder and why follow."""

CWD_EXIT = 126
"""The exit code of a command whose folder cannot be entered (a shell's "cannot execute")."""

ORDER_END_FIRST = "end 0\n"
"""Tells the guard that the first command, which was sent without a mark, has ended."""

ORDER_RUN = "run {}\n"
"""Tells the guard that a command runs: if the client is lost, all of it is ended, also when its
leader has been quicker than the guard."""

ORDER_END = "end {}\n"
"""Tells the guard that such a command has ended."""

ORDER_BYE = "bye\n"
"""Tells the guard that the connection closes in good order: it leaves, and touches nothing."""

POSIX_SHELLS = frozenset("sh ash bash dash busybox ksh ksh93 mksh lksh oksh loksh yash zsh".split())
"""Login shells, by the name of their program, that take ``export NAME=value;``."""


# -- words ------------------------------------------------------------------------------------


def quote(word: str) -> str:
    r"""One word for any login shell: each of them reads exactly ``word``.

    Surrogates (bytes that are no UTF-8) stay as they are.

    :raises ValueError: for a NUL, which no shell can take, and for a line feed, which csh and sh
      cannot both be given; :func:`command_text` finds a way around the latter
    """
    _no_nul(word, "a word")
    if "\n" in word:
        raise ValueError(f"no quoting of a line feed suits every shell: {word!r}")
    # Single quotes hold everything but: itself, the backslash in fish, the ! in csh. A backslash
    # in front means the same to all outside of quotes. Two quoted parts never touch, since zsh
    # with RC_QUOTES reads '' between them as a quote.
    parts = re.split(r"([\\'!])", word)
    quoted = (f"\\{part}" if part in "\\'!" else f"'{part}'" for part in parts if part)
    return "".join(quoted) or "''"


def join(words: Iterable[str]) -> str:
    """Words as one command line for any login shell.

    :raises ValueError: without words, or for a word that :func:`quote` refuses
    """
    line = " ".join(quote(word) for word in words)
    if not line:
        raise ValueError("a command needs at least one word")
    return line


def _no_nul(text: str, what: str) -> None:
    if "\0" in text:
        raise ValueError(f"{what} holds a NUL character, which no command can: {text!r}")


# -- commands ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """What a command's processes are found by.

    :param nonce: hex digits that the connection has drawn; no other connection has the same
    :param number: counts the connection's commands, from 1
    :param detach: the command is left alone when the client is lost
    """

    nonce: str
    number: int
    detach: bool = False

    def __post_init__(self) -> None:
        _check_nonce(self.nonce)
        if self.number < 1:
            raise ValueError(f"commands are numbered from 1, not {self.number}")

    @property
    def export(self) -> str:
        """The text that marks a POSIX shell and what it starts from there on."""
        return f"export {MARK}={self.nonce}.{self.number}.$${'.d' if self.detach else ''};"


def _check_nonce(nonce: str) -> None:
    # It is put into a script and into a regular expression.
    if not re.fullmatch("[0-9a-f]+", nonce):
        raise ValueError(f"a nonce is made of hex digits, not {nonce!r}")


def command_text(
    command: str | tuple[str, ...],
    *,
    cwd: str | None = None,
    env: Mapping[str, str | None] | None = None,
    mark: Mark | None = None,
    posix: bool = False,
    relay: bool = False,
) -> str:
    """The text to send to the login shell for a command.

    Without folder, environment and mark it is the command itself. With a mark alone and a POSIX
    login shell, a short assignment precedes the command. Otherwise a small script for the host's
    /bin/sh sets all of them and then hands the command's exact text to the login shell (``$SHELL``)
    or runs the words. The login shell's start files are then read a second time, after the
    variables are set.

    A folder that cannot be entered: a line on stderr that begins with :data:`CWD_MESSAGE`, exit
    code :data:`CWD_EXIT`, and the command is not run.

    :param command: a text for the login shell, or words to run without one
    :param cwd: the folder; relative to where the login shell starts; a leading ``~`` or ``~/`` is
      the host's HOME, all else is literal
    :param env: variables to set, None unsets; ``EXECO_MARK`` in it is passed over
    :param mark: None for a command that is not to be marked
    :param posix: the login shell is known to be a POSIX one (:attr:`Hello.posix`)
    :param relay: give it an empty stdin, and relays for its output
    :raises ValueError: a NUL, an empty folder, no words, or a variable's name that is empty or
      holds ``=``
    """
    words = (command,) if isinstance(command, str) else command
    if not words:
        raise ValueError("a command needs at least one word")
    for word in words:
        _no_nul(word, "the command")
    settings = _env_words(env or {})
    plain = cwd is None and not settings and not relay and (mark is None or posix)
    if plain and (isinstance(command, str) or not any("\n" in word for word in words)):
        text = command if isinstance(command, str) else join(command)
        return text if mark is None else f"{mark.export} {text}"
    script = script_text(command, cwd=cwd, env=env, relay=relay)
    if "\n" in script:
        # What quote() cannot take, /bin/sh decodes. A script does not end with a line feed,
        # so that $(...) drops none.
        coded = script.replace("\\", "\\\\").replace("\n", "\\n").replace("'", "\\0047")
        script = f'eval "$(printf %b {shlex.quote(coded)})"'
    if mark is not None:
        # First, and in plain sight: the guard finds a command that is not yet that far by the
        # text in the arguments of its login shell.
        script = f"{mark.export} {script}"
    return f"exec /bin/sh -c {quote(script)}"


def script_text(
    command: str | tuple[str, ...],
    *,
    cwd: str | None = None,
    env: Mapping[str, str | None] | None = None,
    relay: bool = False,
) -> str:
    """What a script for /bin/sh does to become a command: see :func:`command_text`, whose scripts
    do the same behind the mark.

    :raises ValueError: as there
    """
    words = (command,) if isinstance(command, str) else command
    if not words:
        raise ValueError("a command needs at least one word")
    for word in words:
        _no_nul(word, "the command")
    return (DETACHED if relay else "") + _enter(cwd) + _run(command, _env_words(env or {}))


def _env_words(env: Mapping[str, str | None]) -> list[str]:
    """The arguments of env(1) that make these settings.

    It takes names that the shell's export refuses: readonly ones (UID in bash), other alphabets.
    """
    unset: list[str] = []
    assign: list[str] = []
    for name, value in env.items():
        if not name or "=" in name:
            raise ValueError(f"not a name of an environment variable: {name!r}")
        _no_nul(name, "the name of an environment variable")
        if name == MARK:
            continue  # dict(os.environ) of a script that is a marked command itself
        if value is None:
            unset += ["-u", name]
        else:
            _no_nul(value, f"the environment variable {name}")
            assign.append(f"{name}={value}")
    return [*unset, "--", *assign] if unset or assign else []


def _enter(cwd: str | None) -> str:
    """The part of the script that changes the folder."""
    if cwd is None:
        return ""
    if not cwd:
        raise ValueError("cwd is empty: give a folder, or None for the login shell's own")
    _no_nul(cwd, "cwd")
    if cwd == "~" or cwd.startswith("~/"):
        # An empty HOME would change nothing, silently.
        folder = '"${HOME:-/no HOME}"' + (shlex.quote(cwd[1:]) if cwd[1:] else "")
    else:
        # With ./ in front no CDPATH is searched, and - and -P are folders like others.
        folder = shlex.quote(cwd if cwd.startswith("/") else f"./{cwd}")
    # ls says why in the system's words, where dash's cd says only "can't".
    return (
        f"cd {folder} 2>/dev/null || {{ "
        f'set -- {shlex.quote(cwd)} "$(LC_ALL=C ls -d {folder}/. 2>&1)"; '
        f'printf "{CWD_MESSAGE}%s: %s\\n" "$1" "${{2##*: }}" >&2; exit {CWD_EXIT}; }}; '
    )


def _run(command: str | tuple[str, ...], settings: list[str]) -> str:
    """The part of the script that becomes the command."""
    env = shlex.join(["env", *settings]) + " " if settings else ""
    if isinstance(command, str):
        return f'exec {env}"${{SHELL:-/bin/sh}}" -c {shlex.quote(command)}'
    if env and "=" in command[0]:
        env += "/bin/sh -c 'exec \"$@\"' sh "  # env would take the program's name for a setting
    return f"exec {env}{shlex.join(command)}"


# -- the guard --------------------------------------------------------------------------------

# For dash, bash and busybox sh. Each part becomes one line in single quotes: no quote, no !, and
# every line ends where a blank may stand for its end. What comes from /proc is only compared.
# Every connection pays for what comes before the first order: no other program is run there, little
# is read (dash reads byte by byte), and what is to be done then is not even parsed: most guards get
# no order but the farewell. The output stays open until then: the server would wake up for its end,
# and tell us.
#
# n nonce   c our connection   e set: the first command has ended   a set: grep reads past NUL
# b what the server has started so far: the first command, and the guard
# L the processes, pid:number   U numbers of commands that have not ended   Q their leaders
# G numbers whose leader is there   X set: the command to signal is known to run
# N numbers that the client has said run   A 0 as long as orders come   z what follows them
# W numbers to signal   T pids that were signalled   y set: some are there   t set: client lost
_GUARD_START = r"""
trap "" HUP INT QUIT PIPE TERM;
n=NONCE c=${SSH_CONNECTION:-none} e=ENDED a= t= b= N=" ";
s=other; [ -r /proc/self/environ ] && s=linux;
echo "execo-guard 1 ${SHELL##*/} $s";
unset SSH_CONNECTION GREP_OPTIONS;
export LC_ALL=C;
cd /proc || cd /;

# What the server has started are the children of our parent, if that is the server: see the end.
{ read -r b <$PPID/task/$PPID/children; } 2>/dev/null;

z=REST;
read -r o s w X; A=$?;
case $o in bye) exit 0;; esac;
eval "$z"
"""

_GUARD_REST = r"""
# g pattern file...: a line file:match for each match. Where grep ends at a NUL, one grep reads all
# files, each as a line, whose number tells which.
g() { q=$1; shift;
if [ "$a" ]; then grep -asHoE -e "$q" "$@" /dev/null;
else for f; do [ -e ${f%/*}/exe ] && tr "\0\n" "  " <$f; echo; done | grep -noE -e "$q" |
while read -r l; do case $l in [0-9]*:*) eval f="\${${l%%:*}}"; echo "$f:${l#*:}";; esac; done;
fi </dev/null; };

# st pid: its state R, its parent P and its session S.
st() { s= R= P= S=; while read -r l; do s=$l; done <$1/stat; set -- ${s##*) }; R=$1 P=$2 S=$4; };

# A shell that has not started anything bears the mark in the text after its -c alone (so does an
# ssh to this host, but without -c). cmdline before environ: what runs exec meanwhile is in one.
scan() { L= U= G= Q=" ";
a=${a:-$(printf "x\0y" | grep -aoE y)};
for l in $(g "(-c.(exec /bin/sh -c .)?export )?EXECO_MARK=$n[.][0-9]+[.][0-9$]+([.]d)?"
[0-9]*/cmdline [0-9]*/environ); do
case $l in [0-9]*/*) p=${l%%/*} f=${l#*/};; esac;
case $f in cmdline:E*) continue;; esac;
case $l in *EXECO_MARK=*) ;; *) continue;; esac;
m=${l##*=$n.}; j=${m%%.*}; m=${m#*.}; L="$L $p:$j";
case $m in
$p) G="$G $j" U="$U $j" Q="$Q$p ";;
$p.d) G="$G $j" Q="$Q$p ";;
[$]*) st $p; [ "$S" = $p ] && G="$G $j" && case $m in *d) ;; *) U="$U $j";; esac;;
esac;
done;
case $W in *" 0 "*) first;; esac; };

# The first command: of our connection, and without a mark. Not what serves files beside it, nor
# the subshells of the last g, which are gone.
first() { [ "$e" ] && return; i= F=;
for l in $(g "SSH_CONNECTION=$c" [0-9]*/environ); do
case $l in [0-9]*/environ:*) p=${l%%/*} x=; read -r x <$p/comm;
[ "$x" = sftp-server ] || i="$i $p" F="$F $p/cmdline $p/environ";; esac;
done;
m=$(g EXECO_MARK= $F); m=" "$(echo $m);
for p in $i; do case $m in *" $p/"*) ;; *) kill -0 $p && L="$L $p:0";; esac; done; };

# What execs has no text and no environment for a moment.
blind() { for f in $(grep -sL -e . [0-9]*/cmdline </dev/null); do
[ -e ${f%/*}/exe ] && return; done; return 1; };

# The server starts something: one of its children is the server still.
starts() { i=; read -r m <$PPID/comm && read -r i <$PPID/task/$PPID/children;
for p in $i; do read -r x <$p/comm; [ "$x" = "$m" ] && return; done; return 1; };

# again: a command that runs was not seen: three looks at least, more while it may become visible.
again() { X=$((X+1));
[ $X = 2 ] && return;
[ $X = 3 ] || { [ $X -lt 15 ] && { starts || blind; }; } && { sleep 0.1 || sleep 1; }; };

# A sudo has stopped with its command, and is continued (C): it may have another one in between.
# k signal: again until nothing new is found. From the second time on not the children of what
# was signalled and lives: they may be what its handler runs to clean up.
k() { exec >/dev/null 2>&1; r=0; v=4; [ $1 = KILL ] && v=20;
while [ $r -lt $v ]; do r=$((r+1)) h= y=; scan; [ "$t" ] && W="$W$U ";
for l in $L; do
p=${l%:*};
case $W in *" ${l#*:} "*) ;; *) continue;; esac;
case $p in 1|$$) continue;; esac;
[ "$o" = lead ] && { st $p; case " $S $Q" in *" $p "*) ;; *) continue;; esac; };
y=1;
case $1$r in KILL*) ;; *)
case $T in *" $p "*) continue;; esac; h=1;
case $1$r in STOP*|CONT*|*1) ;; *) st $p; case $T in *" $P "*) continue;; esac;; esac;; esac;
h=1 T="$T$p ";
case $Q in *" $p "*) st $p; C=$P; st $C; C="$C $P";; *) C=;; esac;
kill -$1 $p;
case $1 in TERM) kill -CONT $p $C;; KILL|CONT) kill -CONT $C;; esac;
done;
case "$G " in *"$W"*) X=;; esac;
case $W$y in " 0 1") X=;; esac;
[ "$X" ] && again && r=0 && continue;
[ "$h" ] || break;
done; };

while [ $A = 0 ]; do case $o in
kill|lead) W=" $w " T=" "; k $s;;
run) N="$N$s ";;
end) case $s in 0) e=1;; esac;
case $N in *" $s "*) N="${N%% $s *} ${N#* $s }";; esac;;
bye) exit 0;;
esac; read -r o s w X; A=$?; done;

# The client is lost. It may have had no time to say that the first command has ended: it has if
# nothing lives of what the server had started, which leads a session. But one that the client said
# runs has ended because the client is lost (its stdin has ended, nobody reads what it prints), as
# others may have.
exec >/dev/null 2>&1;
st $$; [ "$S" = $$ ] || b=;
for p in $b; do [ $p = $$ ] && continue; st $p;
case $R in ""|[ZX]) ;; *) b=;; esac; done;
case $N in *" 0 "*) ;; *) [ "$b" ] && e=1;; esac;

# Twice at least: what was about to start may come to light a little later.
W=" 0$N" T=" " t=0 o= X=;
while [ $t -lt 3 ]; do t=$((t+1)); k TERM;
[ "$y" ] || [ $t = 1 ] || blind || exit 0;
sleep 0.3 || { sleep 1; t=3; };
done;
k KILL; exit 0
"""


def guard_text(nonce: str, *, first: bool = True) -> str:
    """The text to send on the guard's channel, whatever the login shell is.

    The guard writes one line (:func:`parse_hello`) and then reads orders, a line each, and costs
    nothing meanwhile: :func:`kill_order`, :data:`ORDER_END_FIRST`, :data:`ORDER_BYE`. When its
    stdin ends without ORDER_BYE, the client is lost: every command of this nonce whose leader
    still lives, and that is not detached, gets TERM and, a second later, KILL, with all that it
    started; so does the first command, unless it was said to have ended. What an ended command
    left behind stays.

    Number 0 is the connection's first command, which was sent without a mark: those processes
    that have the guard's own ``SSH_CONNECTION`` and no mark.

    :param first: there is a first command without a mark, or was
    :raises ValueError: if the nonce is not made of hex digits
    """
    _check_nonce(nonce)
    return _guard_text(first).replace("NONCE", nonce)


@cache
def _guard_text(first: bool) -> str:
    start = _GUARD_START.replace("ENDED", "" if first else "1")
    script = _one_line(start).replace("REST", quote(_one_line(_GUARD_REST)))
    # A login shell that is /bin/sh need not become it once more, which takes as long as all else
    # here. The eval is for other shells, which would not go on after a syntax that they do not have
    # (&& in an old fish).
    here = f'test "$SHELL" = /bin/sh && eval {quote(script)}'
    return f"eval {quote(here)}; exec /bin/sh -c {quote(script)}"


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return " ".join(line for line in lines if line and not line.startswith("#"))


def kill_order(number: int, signal_number: int, *, group: bool = True, runs: bool = False) -> str:
    """The order to send a signal to every process of a command.

    TERM is followed by CONT, since a stopped process would not see it.

    :param number: the command's, 0 for the first one
    :param signal_number: as the client's system numbers it; it is sent by name where it has one
    :param group: False: only to the command's own process, and to leaders of sessions, which is
      what the server has started (and what the command has started with setsid)
    :param runs: the command is known to run: if its leader is not seen at once, the guard looks
      again. It is not while it execs, when for a moment it has no environment to read, and while
      the server has yet to become it
    """
    try:
        name = signal.Signals(signal_number).name.removeprefix("SIG")
    except ValueError:
        name = str(signal_number)  # a real-time signal
    return f"{'kill' if group else 'lead'} {name} {number}{' 1' if runs else ''}\n"


@dataclass(frozen=True, slots=True)
class Hello:
    """What a guard says of its host.

    :param shell: the name of the login shell's program (``bash``), empty if unknown
    :param posix: that is a POSIX shell: ``command_text(posix=True)`` suits it
    :param linux: it has Linux's /proc: the guard can find processes
    """

    shell: str
    posix: bool
    linux: bool


def parse_hello(line: str) -> Hello | None:
    """A guard's first line. None for another line: the login shell's start files may print too."""
    # Without a regular expression: with blanks in it, a host could keep one busy for ever.
    said, _, system = line.rstrip().rpartition(" ")
    _, begun, shell = said.partition("execo-guard 1 ")
    if not begun or system not in ("linux", "other"):
        return None
    shell = shell.strip()
    return Hello(shell, shell in POSIX_SHELLS, system == "linux")
