"""What ``ssh -G`` says of a host, and the same words made of what execo has read."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from execo.transports.ssh_config import HostSettings

__all__ = ["Dump", "Refused", "as_dump", "dump", "taken"]

Dump = dict[str, list[str]]

STRICT = {"true": "yes", "false": "no"}
UNSET_LISTS = {
    "userknownhostsfile": "{home}/.ssh/known_hosts {home}/.ssh/known_hosts2",
    "globalknownhostsfile": "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",
}
USUAL_KEYS = ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss", "dsa")


class Refused(Exception):
    """ssh has refused the files or the host."""


def dump(file: Path | str, host: str, *words: str) -> Dump:
    """``ssh -G``: each keyword with its values."""
    command = ["ssh", "-G", "-F", str(file), *words, "--", host]
    done = subprocess.run(
        command, capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=60
    )
    if done.returncode:
        raise Refused(done.stderr.decode(errors="surrogateescape"))
    found: Dump = {}
    for line in done.stdout.decode(errors="surrogateescape").split("\n"):
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def taken(said: Dump) -> dict[str, object]:
    """What execo takes of a dump, in a form that can be compared."""
    found: dict[str, object] = {key: " ".join(said.get(key, ())) for key in ONE}
    found["stricthostkeychecking"] = STRICT.get(
        said["stricthostkeychecking"][0], said["stricthostkeychecking"][0]
    )
    usual = [f"~/.ssh/id_{kind}" for kind in USUAL_KEYS]
    keys = said.get("identityfile", [])
    found["identityfile"] = [key for key in keys if key.lower() != "none" and keys != usual]
    for key in MANY:
        # The second reading sends names twice.
        found[key] = list(dict.fromkeys(said.get(key, ())))
    found["left"] = any(said.get(key, [usual])[0] != usual for key, usual in LEFT.items())
    return found


def as_dump(settings: HostSettings) -> dict[str, object]:
    """The same, of what execo has read."""
    entry = pwd.getpwuid(os.getuid())

    def files(key: str, names: Sequence[str] | None) -> str:
        return UNSET_LISTS[key].format(home=entry.pw_dir) if names is None else " ".join(names)

    return {
        "user": settings.user or entry.pw_name,
        "hostname": settings.hostname,
        "port": str(settings.port or 22),
        "addressfamily": settings.address_family or "any",
        "identitiesonly": "yes" if settings.identities_only else "no",
        "hashknownhosts": "yes" if settings.hash_known_hosts else "no",
        "identityagent": settings.identity_agent or "",
        "hostkeyalias": settings.host_key_alias or "",
        "connecttimeout": _number(settings.connect_timeout, "none"),
        "serveraliveinterval": _number(settings.server_alive_interval, "0"),
        "serveralivecountmax": _number(settings.server_alive_count_max, "3"),
        "requiredrsasize": _number(settings.required_rsa_size, "1024"),
        "proxycommand": settings.proxy_command or "",
        "proxyjump": _jumps(settings),
        "userknownhostsfile": files("userknownhostsfile", settings.user_known_hosts_files),
        "globalknownhostsfile": files("globalknownhostsfile", settings.global_known_hosts_files),
        "stricthostkeychecking": settings.strict_host_key_checking or "ask",
        "identityfile": list(settings.identity_files or ()),
        "certificatefile": list(settings.certificate_files),
        "sendenv": list(settings.send_env),
        "setenv": [f"{name}={value}" for name, value in settings.set_env],
        "left": bool(settings.only_openssh),
    }


# Keywords with one value; with several; and those that ssh alone can do, with the usual value.
ONE = (
    *("user", "hostname", "port", "addressfamily", "identitiesonly", "hashknownhosts"),
    *("identityagent", "hostkeyalias", "connecttimeout", "serveraliveinterval"),
    *("serveralivecountmax", "requiredrsasize", "proxycommand", "proxyjump"),
    *("userknownhostsfile", "globalknownhostsfile"),
)
MANY = ("certificatefile", "sendenv", "setenv")
LEFT: dict[str, str | None] = {
    "gssapiauthentication": "no",
    "connectionattempts": "1",
    "canonicalizehostname": "false",
}


def _number(value: int | None, usual: str) -> str:
    return usual if value is None else str(value)


def _jumps(settings: HostSettings) -> str:
    words = []
    for hop in settings.proxy_jump:
        host = hop.host
        last = hop is settings.proxy_jump[-1]
        if ":" in host or (last and not host.strip("1234567890.")):
            host = f"[{host}]"
        user = f"{hop.user}@" if hop.user is not None else ""
        words.append(user + host + (f":{hop.port}" if hop.port is not None else ""))
    return ",".join(words)
