"""Bytes as one long line, for a way that cuts what passes into lines.

taktuk makes a message of each line: an ordinary text would be some twenty times slower than bytes
without line feeds, and one of short lines would take for ever.
"""

from __future__ import annotations

__all__ = ["Decoder", "one_line"]

_BEGIN = b"execo-one-line\n"

# perl is there, since taktuk is. A signal is for the script, whose end is told as its own.
_ENCODE = (
    '$p=open(P,"-|",@ARGV)||die"$ARGV[0]: $!\\n";'
    "$SIG{$_}=sub{kill$_[0],$p}for qw(HUP INT TERM);"
    'binmode P;binmode STDOUT;$|=1;print"execo-one-line\\n";'
    "while(($n=sysread P,$_,65536)||!defined$n&&$!==4){"  # 4 is EINTR
    "$n||next;s/\\\\/\\\\\\\\/g;s/\\n/\\\\n/g;print}"
    'print"\\n";close P;'
    "if($s=$?&127){$SIG{$_}=q(DEFAULT)for qw(HUP INT TERM);kill$s,$$}exit$?>>8"
)


def one_line(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words that run ``words``, with a stdout for :class:`Decoder`."""
    return ("perl", "-e", _ENCODE, *words)


class Decoder:
    """Gives back what :func:`one_line` has made a line of. What the login shell printed before
    stays as it is, what it prints after the end is dropped."""

    def __init__(self) -> None:
        self._begun = self._ended = False
        self._rest = b""

    def decode(self, data: bytes) -> bytes:
        """The bytes that ``data`` adds."""
        if self._ended:
            return b""
        noise, data, self._rest = b"", self._rest + data, b""
        if not self._begun:
            noise, begin, data = data.partition(_BEGIN)
            if not begin:
                self._rest = noise[1 - len(_BEGIN) :]  # it may be cut in the middle
                return noise[: 1 - len(_BEGIN)]
            self._begun = True
        line, end, _ = data.partition(b"\n")
        self._ended = bool(end)
        if (len(line) - len(line.rstrip(b"\\"))) % 2:
            line, self._rest = line[:-1], b"\\"  # the next byte says what it means
        pieces = line.split(b"\\\\")
        return noise + b"\\".join(piece.replace(b"\\n", b"\n") for piece in pieces)
