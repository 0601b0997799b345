"""The scripts that Put and Get run on hosts.

For any POSIX shell (dash, bash, ksh, busybox) with the usual programs: ``cat mv rm mkdir wc touch
chmod grep``, and ``tar`` for folders and for several files at once. Each is sent as words, ``sh -c
SCRIPT sh NAME...``: names never become part of a script. Lines end where a blank may stand for
their end, and there are no single quotes, so that every login shell passes them on unchanged.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence

__all__ = [
    "END_NAME",
    "HEADER",
    "RSYNC_HEADER",
    "TRAILER",
    "get_command",
    "is_folder_name",
    "put_file_command",
    "put_tree_command",
    "rsync_get_command",
    "rsync_put_command",
    "temporary_name",
    "too_long",
]

HEADER = b"execo-get "
"""How the first line of what Get receives begins; what the login shell printed before is skipped.
"""

RSYNC_HEADER = b"execo-rsync "
"""How the line begins that says that the host is ready for rsync."""

TRAILER = b"execo-get end\n"
"""The last bytes of what Get receives, where no size says that nothing is missing."""

END_NAME = ".execo-end-of-archive"
"""The last file of an archive that Put sends; it shows that nothing is missing."""

_MOST_WORDS = 100_000
"""Characters of all names together that a command may have: Linux takes 128 KiB."""

# rename(2) replaces a link, not the file that it leads to: that is looked for. A link in a folder
# for everybody (/tmp) is followed only if it is one's own or that of the folder's owner: as Linux
# does in open(2) (fs.protected_symlinks), which readlink gets around. Somebody else could lead us
# to a file of ours. The point keeps line feeds at the end of a name, which $(...) would drop.
_REAL = (
    'owner() { (set -f; IFS=" "; set -- $(ls -ldn "$1"); echo "$3"); }; '
    "real() { r=$1; n=0; "
    'while [ -L "$r" ]; do '
    "n=$((n+1)); p=${r%/*}/; "
    'if [ -k "$p" ]; then u=$(owner "$r"); '
    'case $u in "$(id -u)"|"$(owner "$p.")") ;; '
    '*) echo "$r: it is a link of somebody else (user $u), which is not followed" >&2; return 1;; '
    "esac; fi; "
    't=$(readlink "$r" && echo .) || return; t=${t%??}; '
    "case $t in /*) r=$t;; *) r=$p$t;; esac; "
    'if [ $n -gt 40 ]; then echo "$1: its link leads nowhere" >&2; return 1; fi; '
    "done; "
    'if [ ! -d "${r%/*}/" ]; then echo "$1: its link leads nowhere" >&2; return 1; fi; }; '
)

# What is left when the script is ended, by whatever but KILL, is removed; the ordinary end has
# nothing to remove, and saves the program.
# A second signal (the guard's, when the connection is lost) must not end the removal.
_DEAF = 'trap "" HUP INT PIPE TERM; '
_TIDY = (
    "trap tidy EXIT; trap "
    '"exit 129" HUP; trap "exit 130" INT; trap "exit 141" PIPE; trap "exit 143" TERM; '
)

# d the destination   q the temporary name   NAME for a destination that is a folder
_PLACE_OF_FILE = (
    "d=WHERE; shift; "
    'if [ -d "$d" ]; then d=${d%/}/$1; '
    "else case $d in "
    '*/) mkdir -p "$d" || exit; d=$d$1;; '
    '*) [ -d "${d%/*}/" ] || mkdir -p "${d%/*}" || exit;; '
    "esac; fi; "
    'if [ -d "$d" ]; then echo "$d: it is a folder" >&2; exit 1; fi; '
)
_PUT_FILE = (
    _PLACE_OF_FILE + 'if [ -e "$d" ] && [ ! -f "$d" ]; then exec cat >"$d"; fi; '
    '[ ! -L "$d" ] || { ' + _REAL + 'real "$d" || exit; d=$r; }; '
    "q=${d%/*}/TEMPORARY; "
    "tidy() { " + _DEAF + 'rm -f "$q"; }; ' + _TIDY + "umask UMASK; set -C; "
    'cat >"$q" || exit; '
    'n=$(wc -c <"$q") || exit; '
    'if [ "$n" -ne SIZE ]; then echo "$d: of SIZE bytes, "$n" have come" >&2; exit 1; fi; '
    'TOUCH "$q"; CHMOD'
    'mv -f "$q" "$d" && trap - EXIT'
)

# The files arrive in a folder beside their destination. What is new there, or replaces a regular
# file, is moved in batches; folders that exist are merged; what is no regular file is written to.
_PUT_TREE = (
    "d=WHERE; "
    '[ -d "$d" ] || mkdir -p "$d" || exit; '
    "d=${d%/}; q=$d/TEMPORARY; "
    "tidy() { " + _DEAF + 'chmod -R u+rwX "$q"; rm -rf "$q"; }; ' + _REAL + _TIDY +
    # move FROM TO ENTRY...: a folder that may not be written may not be moved either
    "move() { t=$2; shift 2; [ $# -eq 0 ] || mv -f "
    '"$@" "$t/"; }; '
    'locked() { chmod u+w "$1" && mv -f "$1" "$2" && chmod u-w "$2"; }; '
    "merge() { "
    'for e in "$1"/* "$1"/.*; do '
    "b=${e##*/}; case $b in .|..) continue;; esac; "
    '[ -e "$e" ] || continue; b=$2/$b; '
    'if [ -d "$b" ]; then '
    'if [ -d "$e" ]; then [ -w "$e" ] || chmod u+rwx "$e"; merge "$e" "$b" || return; '
    'else echo "$b: it is a folder" >&2; return 1; fi; '
    'elif [ -d "$e" ] && [ -e "$b" ]; then echo "$b: it is no folder" >&2; return 1; '
    'elif [ -e "$b" ] && [ ! -f "$b" ]; then cat "$e" >"$b" || return; '
    'elif [ -L "$b" ]; then real "$b" && mv -f "$e" "$r" || return; '
    'elif [ -d "$e" ] && [ ! -w "$e" ]; then locked "$e" "$b" || return; '
    'else set -- "$@" "$e"; '
    'if [ $# -gt 101 ]; then move "$@" || return; set -- "$1" "$2"; fi; '
    "fi; done; "
    'move "$@"; }; '
    '(umask 077 && mkdir "$q") && tar -xopf - -C "$q" && '
    # An archive may be cut between two files without tar's noticing: its last one must be there.
    'rm "$q/END" && merge "$q" "$d" || exit; '
    'trap - EXIT; rm -rf "$q"'
)

# Names are expanded here, unless they exist as they are; IFS is empty, so that nothing else happens
# to them. Twice, since a list of all that a pattern gives would be copied for each of them.
_EACH = 'for f in NAMES; do if [ -e "$f" ]; then set -f; else set +f; fi; for g in $f; do '
_DONE = "done; done; "

# One regular file is sent as it is after a line with its size, mode and time; of what has no size
# to trust (/proc, devices), all is sent. What has no size ends in the trailer.
# GNU tar exits 1 when a file has changed meanwhile, and that is whole; it does so too when a file
# has become shorter, or is gone, and then what it has sent is not what was there. Its words tell.
_GET = (
    "LC_ALL=C; export LC_ALL; IFS=; n=0; "
    + _EACH
    + 'n=$((n+1)); o=$g; [ -e "$g" ] || { ls -Ld "$g" >/dev/null; exit 1; }; '
    'if [ -f "$g" ]; then exec 3<"$g" || exit; exec 3<&-; fi; '
    + _DONE
    + 'if [ $n -eq 1 ] && [ ! -d "$o" ]; then exec <"$o" || exit; '
    's=$(stat -Lc "%s %a %Y" "$o" 2>/dev/null || stat -Lf "%z %Lp %m" "$o") || exit; '
    '[ -s "$o" ] && [ -f "$o" ] || s="- ${s#* }"; '
    'case $o in /proc/*|/sys/*) s="- ${s#* }";; esac; '
    'printf "%sfile %s\\n%s\\0" "HEADER" "$s" "${o##*/}"; '
    'case $s in -*) cat || exit; printf "%s\\n" "TRAILER"; exit;; *) exec cat;; esac; fi; '
    "exec 3>&1; "
    "pack() { e=$( (cd "
    '"$c" && exec tar -chf - "$@") 2>&1 >&3 3>&-); s=$?; '
    '[ -z "$e" ] || printf "%s\\n" "$e" >&2; '
    'case $s in 1) [ -z "$e" ] || printf "%s\\n" "$e" | '
    'grep -qv -e ": file changed as we read it\\$" -e ": socket ignored\\$" || s=0;; '
    '134|139) echo "tar crashed: a link that leads to a folder it is in does that to some" >&2;; '
    "esac; return $s; }; "
    'printf "%star\\n" "HEADER"; c=; k=0; '
    + _EACH
    + 'case ${g##*/} in .|..|"") g=$(cd "$g" && pwd && echo .) || exit; g=${g%??};; esac; '
    "p=${g%/*}/; "
    'if [ $k -eq 500 ] || [ "$p" != "$c" ]; then '
    '[ $k -eq 0 ] || pack "$@" || exit; set --; k=0; c=$p; fi; '
    'set -- "$@" "./${g##*/}"; k=$((k+1)); ' + _DONE + 'pack "$@" || exit; printf "%s\\n" "TRAILER"'
)


# With rsync, scripts find the places, as above, and then become the rsync of the host. Its options
# are chosen by the rsync here, which is started when the host is ready, and come as the first line.
_HAS_RSYNC = (
    "command -v rsync >/dev/null || "
    '{ echo "rsync is missing there: apt install rsync" >&2; exit 127; }; '
)
_RSYNC = 'IFS= read -r w || exit; eval "exec rsync $w . '
_RSYNC_PUT_FILE = (
    _HAS_RSYNC + _PLACE_OF_FILE + 'if [ -e "$d" ] && [ ! -f "$d" ]; then '
    'echo "$d: it is no regular file, and rsync would replace it" >&2; exit 1; fi; '
    '[ ! -L "$d" ] || { ' + _REAL + 'real "$d" || exit; d=$r; }; '
    'printf "%s0\\n" "HEADER"; ' + _RSYNC + '\\"\\$d\\""'
)
_RSYNC_PUT_TREE = (
    _HAS_RSYNC + "d=WHERE; "
    '[ -d "$d" ] || mkdir -p "$d" || exit; d=${d%/}/; '
    'printf "%s0\\n" "HEADER"; ' + _RSYNC + '\\"\\$d\\""'
)
_RSYNC_GET = (
    _HAS_RSYNC
    + "LC_ALL=C; export LC_ALL; IFS=; n=0; "
    + _EACH
    + '[ -e "$g" ] || { ls -Ld "$g" >/dev/null; exit 1; }; '
    'case ${g##*/} in .|..|"") g=$(cd "$g" && pwd && echo .) || exit; g=${g%??};; esac; '
    '[ -f "$g" ] || [ -d "$g" ] || '
    '{ echo "$g: rsync takes files and folders alone" >&2; exit 1; }; '
    '[ $n -gt 0 ] || set --; n=$((n+1)); set -- "$@" "$g"; '
    + _DONE
    + 'printf "%s%s\\n" "HEADER" "$n"; '
    "for g; do s=-; "
    '[ -d "$g" ] || s=$(wc -c <"$g") || exit; '
    'printf "%s %s\\0" "$s" "${g##*/}"; done; ' + _RSYNC + '\\"\\$@\\""'
)


def put_file_command(
    location: str, name: str, *, size: int, mode: int, mtime: float
) -> tuple[str, ...]:
    """The words that store the bytes of one file from stdin.

    :param location: where: a name, or a folder if it exists or ends with a slash
    :param name: the file's name in a folder
    :param size: how many bytes there have to be
    :param mode: its permissions
    :param mtime: a unix timestamp; kept to the second
    """
    stamp = time.strftime("%Y%m%d%H%M.%S", time.gmtime(mtime))
    where, word = _home_apart(location, 1)
    # What cat creates has the right mode at once, if it is not a program; it is never open to
    # more than that.
    chmod = f'chmod {mode:o} "$q" || exit; ' if mode & 0o7111 else ""
    script = _filled(
        _PUT_FILE,
        WHERE=where,
        TEMPORARY=temporary_name(),
        UMASK=f"{0o777 & ~mode:03o}",
        SIZE=str(size),
        TOUCH=f"TZ=UTC0 touch -t {stamp}",
        CHMOD=chmod,
    )
    return ("sh", "-c", script, "sh", word, name)


def put_tree_command(location: str) -> tuple[str, ...]:
    """The words that unpack a tar stream from stdin into the folder ``location``."""
    where, word = _home_apart(location, 1)
    script = _filled(_PUT_TREE, WHERE=where, TEMPORARY=temporary_name(), END=END_NAME)
    return ("sh", "-c", script, "sh", word)


def get_command(names: Sequence[str]) -> tuple[str, ...]:
    """The words that send files to stdout: the header, then bytes or tar archives, one after the
    other, then the trailer."""
    # Without the slashes at its end a folder has a last part.
    different = dict.fromkeys(name.rstrip("/") or name for name in names)
    found = [_home_apart(name, at) for at, name in enumerate(different, 1)]
    script = _filled(
        _GET,
        NAMES=" ".join(text for text, _ in found),
        HEADER=HEADER.decode(),
        TRAILER=TRAILER.decode().rstrip(),
    )
    return ("sh", "-c", script, "sh", *(word for _, word in found))


def rsync_put_command(location: str, name: str | None) -> tuple[str, ...]:
    """The words that take files by rsync: one file ``name``, or, if that is None, several files or
    folders."""
    where, word = _home_apart(location, 1)
    script = _RSYNC_PUT_TREE if name is None else _RSYNC_PUT_FILE
    script = _filled(script, WHERE=where, HEADER=RSYNC_HEADER.decode())
    return ("sh", "-c", script, "sh", word, *([] if name is None else [name]))


def rsync_get_command(names: Sequence[str]) -> tuple[str, ...]:
    """The words that give files by rsync. After the header and their number come, for each, its
    size (``-`` for a folder), a blank, its name, and a NUL."""
    different = dict.fromkeys(name.rstrip("/") or name for name in names)
    found = [_home_apart(name, at) for at, name in enumerate(different, 1)]
    script = _filled(
        _RSYNC_GET, NAMES=" ".join(text for text, _ in found), HEADER=RSYNC_HEADER.decode()
    )
    return ("sh", "-c", script, "sh", *(word for _, word in found))


def is_folder_name(location: str) -> bool:
    """Whether a location can be nothing but a folder."""
    return location.endswith("/") or location.rpartition("/")[2] in (".", "..", "~", "")


def temporary_name() -> str:
    """A name that nothing has, for what is not complete yet."""
    return f".execo-{os.urandom(8).hex()}"


def _home_apart(name: str, rank: int) -> tuple[str, str]:
    """The text for argument ``rank``, and the argument.

    The shell itself expands ``~`` and ``~user``, which therefore stand in the script.
    """
    place = f'"${{{rank}}}"'
    match = re.match(r"(~[A-Za-z0-9._-]*)(?:/|$)", name)
    if match is not None:
        return f"{match[1]}/{place}", name[match.end() :].lstrip("/")
    # With ./ in front, "-rf" is a name like others.
    return place, name if name.startswith("/") else f"./{name}"


def _filled(script: str, **values: str) -> str:
    return re.sub("|".join(values), lambda match: values[match[0]], script)


def too_long(words: Iterable[str]) -> bool:
    """Whether a host could not take a command of these words."""
    return sum(len(word.encode("utf-8", "surrogateescape")) + 3 for word in words) > _MOST_WORDS
