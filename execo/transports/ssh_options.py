"""The words of ``ssh_options``, as the options of ssh_config that they stand for.

Reference: ssh(1) of OpenSSH 9.2. Of ``-o``, ``-i``, ``-l``, ``-p`` and ``-J`` the first counts, of
the other letters the last, and these come before ``-o``: as in ssh.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["SshOptions", "read_options"]


@dataclass(frozen=True, slots=True)
class SshOptions:
    """What the words ask for.

    :param lines: as for :meth:`~execo.transports.ssh_config.SshConfig.lookup`
    :param file: the file of ``-F``, None without one
    :param only_openssh: the word that only the ssh command understands, None without one
    """

    lines: tuple[str, ...] = ()
    file: str | None = None
    only_openssh: str | None = None


# Letters that change nothing here: nothing is printed that was not asked for, the script decides
# on terminals.
_NOTHING = frozenset("qtTk")

# Letter -> the option that it sets. Of each option the last one counts.
_FLAGS = {
    "4": ("AddressFamily", "inet"),
    "6": ("AddressFamily", "inet6"),
    "a": ("ForwardAgent", "no"),
    "A": ("ForwardAgent", "yes"),
    "C": ("Compression", "yes"),
    "K": ("GSSAPIAuthentication", "yes"),
    "x": ("ForwardX11", "no"),
    "X": ("ForwardX11", "yes"),
    "Y": ("ForwardX11", "yes"),
}
_LAST = {"b": "BindAddress", "B": "BindInterface", "c": "Ciphers", "m": "MACs", "S": "ControlPath"}
_LAST["I"] = "PKCS11Provider"
_FIRST = {"i": "IdentityFile", "l": "User", "p": "Port"}
_WITH_VALUE = frozenset({*_LAST, *_FIRST, "e", "F", "J", "o"})


def read_options(words: Sequence[str]) -> SshOptions:
    """What ``ssh_options`` ask for; the values are read by whoever looks a host up."""
    last: dict[str, str] = {}
    lines: list[str] = []
    file: str | None = None
    for word, letter, value in _letters(words):
        if letter in _FLAGS:
            name, meaning = _FLAGS[letter]
            last[name] = f"{name}={meaning}"
        elif value is None:
            if letter not in _NOTHING:
                return SshOptions(only_openssh=word)
        elif letter == "F":
            file = value
        elif letter == "o":
            lines.append(value)
        elif letter == "J":
            lines.append(f"ProxyJump={value}")
        elif letter in _LAST:
            last[_LAST[letter]] = f"{_LAST[letter]}={_quoted(value)}"
        elif letter in _FIRST:
            lines.append(f"{_FIRST[letter]}={_quoted(value)}")
    return SshOptions((*last.values(), *lines), file)


def _letters(words: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
    """Each word with a letter in it and the value of that; a word that cannot be an option, or
    lacks its value, has a letter that there is not."""
    rest = iter(words)
    for word in rest:
        letters = word[1:] if word.startswith("-") and word != "--" else ""
        if not letters:
            yield word, "", None
        while letters:
            letter, letters = letters[0], letters[1:]
            value: str | None = None
            if letter in _WITH_VALUE:
                value, letters = letters or next(rest, None), ""
                letter = letter if value is not None else ""
            yield word, letter, value


def _quoted(value: str) -> str:
    """A value as one word of ssh_config(5)."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
