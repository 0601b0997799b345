"""Samples of doc/guide/become.rst: secret variables, and commands as another user.

One should see that the token arrives, and is shown nowhere; and, where this machine has sudo and
lets who runs this become root without a password, whom the command has become.
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
from collections.abc import Callable

from execo import Host, Remote, SshProcess
from execo.config import default_connection_params
from execo.testing import Cluster

Password = Callable[[str, str], str]


def secret(host: Host) -> None:
    # Secret variables.
    process = SshProcess(
        'test "$TOKEN" = abc123 && echo it has arrived',
        host,
        secret_env={"TOKEN": "abc123"},
    ).run()
    print(process.stdout, end="")
    print(process.secret_env)


def as_root(hosts: list[Host]) -> None:
    # As root.
    whoami = Remote("id -un", hosts, become="root").run()
    for process in whoami.processes:
        print(process.stdout, end="")


def all_as_root() -> None:
    # All of them.
    default_connection_params["become"] = "root"
    default_connection_params["become_method"] = "doas"  # "sudo" is the default


def ask_for(hosts: list[Host], ask: Password | None = None) -> Remote:
    # A password that is asked for once.
    known: dict[str, str] = {}

    def password(host: str, user: str) -> str:
        if "sudo" not in known:
            known["sudo"] = getpass.getpass("password for sudo, of all hosts: ")
        return known["sudo"]

    return Remote(
        "systemctl restart nginx",
        hosts,
        {"become": "root", "become_password": ask or password},
    )


def main() -> None:
    with Cluster(2) as cluster:
        secret(cluster.hosts[0])
        free = shutil.which("sudo") is not None and (
            subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
        )
        if free:
            as_root(cluster.hosts)
        else:
            print("root is for those whom sudo lets in")
        print(ask_for(cluster.hosts))
        all_as_root()
        print(repr(SshProcess("id -un", cluster.hosts[0])))


if __name__ == "__main__":
    main()
