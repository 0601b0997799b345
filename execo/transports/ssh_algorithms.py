"""Lists of algorithms as ssh_config says them: what they mean, and whether we can do any of them.

A list replaces the usual one; with ``+`` in front it is added to it, with ``^`` put at its head,
with ``-`` taken away from it, wildcards included (ssh_config(5), Ciphers). The usual ones are those
of our own connections, in their order. What paramiko does not know is dropped, so that a list made
for ssh can be used as it is; a list of which nothing is left is left to ssh.
"""

from __future__ import annotations

from collections.abc import Collection

from .base import Algorithms
from .ssh_config_match import PatternList
from .ssh_config_settings import HostSettings

__all__ = ["CIPHERS", "HOST_KEYS", "KEY_EXCHANGES", "MACS", "algorithms_of"]

CIPHERS = (
    # First those that encrypt and authenticate in one go: they are several times quicker.
    *("aes128-gcm@openssh.com", "aes256-gcm@openssh.com"),
    *("aes128-ctr", "aes192-ctr", "aes256-ctr"),
)
MACS = (
    *("hmac-sha2-256", "hmac-sha2-512", "hmac-sha2-256-etm@openssh.com"),
    *("hmac-sha2-512-etm@openssh.com", "hmac-sha1"),
)
KEY_EXCHANGES = (
    "mlkem768x25519-sha256",
    "curve25519-sha256@libssh.org",
    *("ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521"),
    "diffie-hellman-group16-sha512",
    *("diffie-hellman-group-exchange-sha256", "diffie-hellman-group14-sha256"),
)
HOST_KEYS = (
    "ssh-ed25519",
    *("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)
SIGNATURES = (*(f"{name}-cert-v01@openssh.com" for name in HOST_KEYS), *HOST_KEYS)

# Known to every paramiko that we use, beside the usual ones.
_MORE_CIPHERS = frozenset({"aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"})
_MORE_MACS = frozenset({"hmac-sha1-96", "hmac-md5", "hmac-md5-96"})
_NOT_EVERYWHERE = "mlkem768x25519-sha256"

# Other names of one thing: paramiko knows it by the second alone.
_SAME = {"curve25519-sha256": "curve25519-sha256@libssh.org"}


def algorithms_of(settings: HostSettings) -> tuple[Algorithms, tuple[str, ...]]:
    """The algorithms that the settings of a host name, and why only ssh can do it, if so."""
    said = (
        settings.ciphers,
        settings.macs,
        settings.kex_algorithms,
        settings.host_key_algorithms,
        settings.pubkey_accepted_algorithms,
    )
    if not any(said) and settings.required_rsa_size is None:
        return Algorithms(), ()
    lists: list[tuple[str, ...] | None] = []
    problems: list[str] = []
    for text, (keyword, usual, more) in zip(said, _KINDS, strict=True):
        names = None if text is None else _resolved(text, usual)
        lists.append(names)
        if names is not None and not (set(names) & more):
            problems.append(f"{keyword} {text}: none of these can be done in process")
    found = Algorithms(
        ciphers=lists[0],
        macs=lists[1],
        key_exchanges=lists[2],
        host_keys=lists[3],
        signatures=lists[4],
        least_rsa_bits=settings.required_rsa_size or 0,
    )
    return found, tuple(problems)


def _resolved(text: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    sign = text[0] if text[0] in "+-^" else ""
    names = [_SAME.get(name, name) for name in text.removeprefix(sign).split(",") if name]
    if sign == "-":
        # Both names of one thing have to go: here there is only the longer one.
        gone = PatternList([*text[1:].split(","), *names])
        return tuple(name for name in usual if not gone.matches(name))
    if sign == "+":
        names = [*usual, *names]
    elif sign == "^":
        names = [*names, *usual]
    return tuple(dict.fromkeys(names))


def _can(usual: Collection[str], more: Collection[str] = ()) -> frozenset[str]:
    return frozenset({*usual, *more} - {_NOT_EVERYWHERE})


_KINDS = (
    ("Ciphers", CIPHERS, _can(CIPHERS, _MORE_CIPHERS)),
    ("MACs", MACS, _can(MACS, _MORE_MACS)),
    ("KexAlgorithms", KEY_EXCHANGES, _can(KEY_EXCHANGES)),
    ("HostKeyAlgorithms", HOST_KEYS, _can(HOST_KEYS)),
    ("PubkeyAcceptedAlgorithms", SIGNATURES, _can(SIGNATURES)),
)
