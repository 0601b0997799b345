"""Hosts that are folders of this machine: what is to run on a host runs here, in its folder.

For tests of what is sent to hosts, where a connection would only cost time. A test module says
``pytest_plugins = ["local_hosts"]``, and its tests take ``hosts``::

    def test_hostname(hosts):
        execo.Put(hosts("web1"), "a.txt").run()
        assert (hosts.home("web1") / "a.txt").exists()

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import execo
from execo import transports
from execo._core.runtime import Runtime
from execo.transports.base import Channel, Exec, Request, Sink

PARAMS = {"transport": "folders"}
"""Connection parameters that lead here."""

_root = Path()


SHELLS = {"bash": ["bash", "--posix"], "ksh": ["ksh"], "busybox": ["busybox", "sh"]}
"""What runs the scripts of hosts whose names begin so; on busybox all programs are its own."""


class FolderTransport:
    """Runs everything by the local transport; the home folder is that of the host."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        local: list[tuple[Request, Sink]] = []
        for request, sink in pairs:
            assert isinstance(request, Exec)
            assert request.target is not None
            home = _root / request.target.address
            command = request.command
            words = ("sh", "-c", command) if isinstance(command, str) else command
            env = {"HOME": str(home), **(request.env or {})}
            kind = request.target.address.partition("-")[0]
            if words[0] == "sh" and kind in SHELLS:
                words = (*SHELLS[kind], *words[1:])
            if kind == "busybox":
                env["PATH"] = str(_root / "busybox.bin")
            cwd = str(home / (request.cwd or "."))
            plain = Exec(words, cwd=cwd, env=env, kill_timeout=request.kill_timeout)
            local.append((plain, sink))
        return transports.get(self._runtime, "local").open_all(local)

    def close_idle(self) -> None:
        """Does nothing: nothing is kept."""

    def close(self) -> None:
        pass


class FolderHosts:
    """Makes them: ``hosts("web1", "web2")`` is a list of two."""

    def __call__(self, *names: str) -> list[execo.Host]:
        for name in names:
            self.home(name)
            if name.startswith("busybox") and not (_root / "busybox.bin").exists():
                _install_busybox(_root / "busybox.bin")
        return [execo.Host(name) for name in names]

    def home(self, name: str) -> Path:
        """The folder that is the host ``name``."""
        folder = _root / name
        folder.mkdir(exist_ok=True)
        return folder


def _install_busybox(folder: Path) -> None:
    program = shutil.which("busybox")
    if program is None:
        pytest.skip("needs busybox, see tests/install-servers")
    folder.mkdir()
    (folder / "busybox").symlink_to(program)
    subprocess.run([program, "--install", "-s", folder], check=True)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHosts:
    global _root
    _root = tmp_path / "hosts"
    _root.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    transports.register("folders", "local_hosts:FolderTransport")
    params: dict[str, Any] = execo.config.default_connection_params
    monkeypatch.setitem(params, "transport", "folders")
    return FolderHosts()
