"""Users of this machine who may become others, for tests: sudo, su and doas are the real ones.

A test module says ``pytest_plugins = ["become_users"]``, and its tests take ``people``. What root
has to write for them (users, a file in ``/etc/sudoers.d``, lines of ``/etc/doas.conf``) is there
for as long as the tests of the module, and removed by a keeper if these are killed.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from execo import Host
from sshd import RealSshd

__all__ = ["PASSWORD", "People", "people"]

PASSWORD = "it's \\a `pass` $word"
"""Of everybody who has one."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 20.0

SUDOERS = """\
Defaults:{prefix}tty requiretty
Defaults:{prefix}asks !lecture, passwd_tries=3, !insults
{prefix}free ALL=(ALL) NOPASSWD: ALL
{prefix}tty ALL=(ALL) NOPASSWD: ALL
{prefix}noisy ALL=(ALL) NOPASSWD: ALL
{prefix}asks ALL=(ALL) PASSWD: ALL
"""

NOISE = """\
printf "[sudo] password for me: Password: "
printf "doas (me@here) password: " >&2
"""

DOAS = """\
permit nopass {prefix}free
permit {prefix}asks
"""

# Removes what a killed test run has left: nobody shall be able to become root on its account. As a
# daemon without the tests' mark in its environment, see sshd.START.
KEEPER = """
folder=$1 owner=$2 prefix=$3
(
    tail --pid="$owner" -f /dev/null
    [ -d "$folder" ] || exit
    rm -f "/etc/sudoers.d/${prefix}test"
    sed -i "/ $prefix[a-z]*$/d" /etc/doas.conf
    [ -s /etc/doas.conf ] || rm -f /etc/doas.conf
    for home in "$folder"/*; do [ ! -d "$home" ] || userdel -f "${home##*/}"; done
    rm -rf "$folder"
) >/dev/null 2>&1 &
"""


class People:
    """The users, ``with People() as people:``.

    - ``free`` becomes root with sudo and doas, without a password
    - ``asks`` the same, with a password
    - ``tty`` as ``free`` with sudo, on a terminal only
    - ``noisy`` as ``free``, and the start-up file of its bash prints prompts
    - ``none`` may do nothing, and has a password
    - ``other`` is somebody to become, with a password
    - ``daemon`` is somebody to become, with no shell
    """

    NAMES = ("free", "asks", "tty", "noisy", "none", "other", "daemon")

    def __init__(self) -> None:
        self.prefix = f"ex{os.getpid()}"
        self.root = os.geteuid() == 0

    def __getattr__(self, name: str) -> str:
        if name not in self.NAMES:
            raise AttributeError(name)
        return self.prefix + name

    def host(self, sshd: RealSshd, name: str, number: int = 1) -> Host:
        """A host where this user logs in."""
        return Host(f"127.0.3.{number}", getattr(self, name), sshd.keyfile, sshd.port)

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="execo-people-"))
        self.folder.chmod(0o755)
        self._sudoers = Path(f"/etc/sudoers.d/{self.prefix}test")
        self._doas = Path("/etc/doas.conf")
        words = [str(self.folder), str(os.getpid()), self.prefix]
        _run("/bin/sh", "-c", KEEPER, "sh", *words)
        try:
            self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def _make(self) -> None:
        for name in self.NAMES:
            user = self.prefix + name
            home = self.folder / user
            home.mkdir()
            shell = {"daemon": "/usr/sbin/nologin", "noisy": "/bin/bash"}.get(name, "/bin/sh")
            _run("useradd", "-M", "-N", "-p", "*", "-d", str(home), "-s", shell, user)
            os.chown(home, pwd.getpwnam(user).pw_uid, -1)
            if name == "noisy":
                (home / ".bashrc").write_text(NOISE)
            if name in ("asks", "none", "other"):
                _run("chpasswd", given=f"{user}:{PASSWORD}\n")
        self._sudoers.touch(0o440)
        self._sudoers.write_text(SUDOERS.format(prefix=self.prefix))
        _run("visudo", "-cf", str(self._sudoers))
        # Others may have theirs in the same file.
        with self._doas.open("a") as file:
            file.write(DOAS.format(prefix=self.prefix))
        _run("doas", "-C", str(self._doas))

    def __exit__(self, *exc_info: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Leave the machine as it was."""
        self._sudoers.unlink(missing_ok=True)
        if self._doas.exists():
            _run("sed", "-i", f"/ {self.prefix}[a-z]*$/d", str(self._doas))
            if not self._doas.read_text():
                self._doas.unlink()
        for name in self.NAMES:
            user = self.prefix + name
            try:
                pwd.getpwnam(user)
            except KeyError:
                continue
            _run("userdel", "-f", user)
        shutil.rmtree(self.folder)


def _run(*command: str, given: str = "") -> None:
    """:raises RuntimeError: if it fails; with what it wrote"""
    done = subprocess.run(
        command,
        env={"PATH": SYSTEM_PATH},
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} exited with {done.returncode}: {done.stderr}")


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    """Users who may become others."""
    if os.geteuid() != 0:
        pytest.skip("only root can let users become others")
    for program in ("sudo", "doas"):
        if shutil.which(program, path=SYSTEM_PATH) is None:
            pytest.skip(f"needs {program}, see tests/install-servers")
    with People() as made:
        yield made
