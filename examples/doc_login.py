"""Samples of doc/guide/login.rst: passphrases, passwords, questions, and what is left to ssh.

One should see that the hosts let us in, and who was asked for what. The hosts of this file take
keys alone, so they ask for no password.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from execo import Host, Remote, logger
from execo.config import default_connection_params
from execo.testing import Cluster

logger.setLevel("ERROR")


def getpass(prompt: str) -> str:
    """Stands in for getpass.getpass: there may be no human."""
    print(prompt)
    return "open sesame"


def code_of_the_minute() -> str:
    """Stands in for the device that shows it."""
    return "123456"


def ask_for_passphrases() -> None:
    # Passphrases.
    default_connection_params["passphrase"] = lambda path: getpass(f"Passphrase of {path}: ")


def passwords(hosts: list[Host]) -> Remote:
    # Passwords.
    vault = json.loads(Path("vault.json").read_text())

    def password(host: str, user: str) -> str:
        return vault[host]

    return Remote("uptime", hosts, {"password": password}).run()


def questions_of_hosts(hosts: list[Host], vault: dict[str, str]) -> Remote:
    # Questions.
    def answers(
        host: str, user: str, title: str, instructions: str, questions: Sequence[tuple[str, bool]]
    ) -> list[str]:
        return [
            code_of_the_minute() if "code" in question.lower() else vault[host]
            for question, shown in questions
        ]

    return Remote("uptime", hosts, {"answers": answers}).run()


def by_ssh(hosts: list[Host]) -> Remote:
    # By ssh.
    kerberos = {"transport": "openssh", "ssh_options": ("-o", "GSSAPIAuthentication=yes")}
    return Remote("uptime", hosts, kerberos).run()


def main() -> None:
    with (
        Cluster(2) as cluster,
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):
        hosts = cluster.hosts
        vault = dict.fromkeys((host.address for host in hosts), "open sesame")
        Path("vault.json").write_text(json.dumps(vault))
        print("passwords:", passwords(hosts).ok)
        print("questions:", questions_of_hosts(hosts, vault).ok)
        if shutil.which("ssh-keygen") is None:
            return
        key = shutil.copy(cluster.keyfile, folder)
        change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", key]
        subprocess.run(change, check=True, stdout=subprocess.DEVNULL)
        ask_for_passphrases()
        locked = [Host(host.address, host.user, key, host.port) for host in hosts]
        print("with a passphrase:", Remote("uptime", locked).run().ok)
        print("by ssh:", by_ssh(hosts).ok)


if __name__ == "__main__":
    main()
