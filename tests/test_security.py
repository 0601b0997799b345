"""Nothing that a script is given becomes a command or an option, here or on a host: words, names of
hosts, users, files, folders and variables, results of substitutions. And the threat model in
``doc/security.rst`` names a test for each of its lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from become_users import People
from execo import (
    Get,
    Host,
    PortForwarder,
    Process,
    Put,
    Remote,
    SshProcess,
    TaktukRemote,
    transports,
)
from execo.host import get_hosts_list
from execo.process import ProcessBase
from fuzzing import examples
from local_hosts import FolderHosts
from sshd import RealSshd

pytest_plugins = ["become_users", "local_hosts", "sshd"]

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60.0

SHELLS = ("sh", "bash", "dash", "ksh", "zsh", "csh", "tcsh", "fish")
TRANSPORTS = ("paramiko", "openssh", "taktuk")

BAIT = "touched"
"""A file that is there only if something was run that should not have been."""

NASTY = [
    f"$(touch {BAIT})",
    f"`touch {BAIT}`",
    f";touch {BAIT};",
    f"a\ntouch {BAIT}\n",
    f"|touch {BAIT}",
    f"&touch {BAIT}&",
    f"'; touch {BAIT}; '",
    f'"; touch {BAIT}; "',
    f"\\'; touch {BAIT} #",
    f">{BAIT}",
    f"{{{{'{BAIT}'}}}}",
    "*",
    "[1-2]",
    "?",
    "~",
    "~root",
    "-rf",
    "-oProxyCommand=x",
    "--rsync-path=x",
    "--",
    "host:x",
    "$HOME",
    "${IFS}",
    "%h %% %C",
    "!!",
    "a b",
    " ",
    "\\",
    "\\n",
    "#",
    "{a,b}",
    "\udcff\udcfe",
    "é\u4e2d",
    "\t\r\x1b\x1e\x1f\x7f",
    "=ls",
]
FILE_NAMES = [name.replace("/", "") for name in NASTY]

any_word = st.one_of(
    st.sampled_from(NASTY),
    st.text(alphabet="\\'\"!$`~#%*?[]{}();&|<>^=@:,- \t\r\na\x1b\x1e\x1f", max_size=12),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.binary(max_size=12).map(lambda data: os.fsdecode(data.replace(b"\0", b""))),
)
file_name = any_word.map(lambda text: os.fsdecode(os.fsencode(text.replace("/", ""))[:200])).filter(
    lambda text: text not in ("", ".", "..") and not text.startswith(".execo-")
)


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    transports.close_idle()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this process, where nothing may be touched."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert not list(tmp_path.rglob(BAIT))


def process_of(host: Host, transport: str, cmd: Any, **options: Any) -> ProcessBase:
    """A command that has ended on a host."""
    if transport == "taktuk":
        action = TaktukRemote(cmd, [host], process_args=options, substitute=False)
        return action.run().processes[0]
    params = {"transport": transport}
    return SshProcess(cmd, host, params, **options).run(PATIENCE)


def home_of(sshd: RealSshd, host: Host) -> Path:
    return sshd.folder / "home" / str(host.user)


# -- words, as given ------------------------------------------------------------------------------

SHOW = ["sh", "-c", 'printf "%s\\0" "$A" "$@"', "sh"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("transport", [*TRANSPORTS, "become"])
def test_words_and_variables_arrive_as_given(
    sshd: RealSshd, people: People, transport: str, shell: str
) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is missing: see tests/install-servers")
    user = sshd.user(path)
    options: dict[str, Any] = {}
    host = sshd.hosts(1, user=user)[0]
    through = transport
    if transport == "become":
        through, options["become"] = "paramiko", user
        host = people.host(sshd, "free")
    times = {"paramiko": 6, "become": 3, "openssh": 2, "taktuk": 1}[transport]

    @examples(times)
    @given(words=st.lists(any_word, max_size=20), value=any_word)
    def check(words: list[str], value: str) -> None:
        run = process_of(host, through, [*SHOW, *words], env={"A": value}, **options)
        assert run.ok, run.dump()
        found = [os.fsdecode(word) for word in run.stdout_bytes.split(b"\0")]
        assert found == [value, *words, ""]

    run = process_of(host, through, [*SHOW, *NASTY], env={"A": NASTY[0]}, **options)
    assert [os.fsdecode(word) for word in run.stdout_bytes.split(b"\0")] == [NASTY[0], *NASTY, ""]
    check()
    assert not list((sshd.folder / "home").rglob(BAIT))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_folders_and_names_of_variables_are_no_commands(sshd: RealSshd, transport: str) -> None:
    host = sshd.hosts(1)[0]
    name = "".join(FILE_NAMES[:11])
    (home_of(sshd, host) / name).mkdir(exist_ok=True)
    run = process_of(host, transport, ["pwd"], cwd=name, env={f"A;touch {BAIT}": "x"})
    assert run.stdout.rstrip("\n").endswith(name.rstrip("\n")), run.dump()
    assert not list((sshd.folder / "home").rglob(BAIT))


def test_words_of_a_local_command_are_read_by_no_shell(here: Path) -> None:
    run = Process([*SHOW, *NASTY], env={"A": NASTY[0]}).run(PATIENCE)
    assert [os.fsdecode(word) for word in run.stdout_bytes.split(b"\0")] == [NASTY[0], *NASTY, ""]
    for word in NASTY[:11]:
        # A text is cut into words, and that is all.
        text = Process(f"printf %s x {word}", nolog_error=True, nolog_exit_code=True)
        text.run(PATIENCE)
        Process([word], nolog_error=True).run(PATIENCE)
        Process("true", name=word).run(PATIENCE)
        Process("true", cwd=f"/none/{word}", nolog_error=True).run(PATIENCE)


@examples(10)
@given(words=st.lists(any_word, min_size=1, max_size=20))
def test_any_words_arrive_at_a_local_command(words: list[str]) -> None:
    ways: list[dict[str, Any]] = [{}, {"pty": True}, {"detach": True}]
    for options in ways:
        coded = [os.fsencode(word).hex() or "-" for word in words]
        script = "import sys, os; print(*(os.fsencode(a).hex() or '-' for a in sys.argv[1:]))"
        run = Process([sys.executable, "-c", script, "x", *words], **options).run(PATIENCE)
        assert run.stdout.split() == ["78", *coded], run.dump()


def test_what_is_substituted_into_words_stays_one_word(sshd: RealSshd, here: Path) -> None:
    values = [word for word in NASTY if "\n" not in word]
    hosts = [sshd.hosts(1)[0]] * len(values)
    action = Remote(["printf", "%s\\0", "{{values}}", "{{{host}}}"], hosts).run()
    for run, value in zip(action.processes, values, strict=True):
        found = [os.fsdecode(word) for word in run.stdout_bytes.split(b"\0")]
        assert found == [value, hosts[0].address, ""]
    assert not list((sshd.folder / "home").rglob(BAIT))


# -- names that look like options -----------------------------------------------------------------

BAD_HOSTS = ["-x", "-oProxyCommand=touch x", "a b", "a\nb", "a\tb", "", "a,b", "a*", "@g", "a\x1bb"]


@pytest.mark.parametrize("name", BAD_HOSTS)
def test_what_is_no_host_is_refused(name: str) -> None:
    for make in (Host, get_hosts_list, lambda name: SshProcess("true", name), Remote_of):
        with pytest.raises(ValueError, match="host"):
            make(name)


def Remote_of(name: str) -> Any:  # noqa: N802 - it stands for the class
    return Remote("true", [name])


@pytest.mark.parametrize("user", ["-u", "--", "a b", "a\nb", "-oProxyCommand=x", "root\t-x"])
def test_what_is_no_user_is_refused(user: str) -> None:
    with pytest.raises(ValueError, match="become is the name of a user"):
        SshProcess("true", "host", become=user)
    if user.startswith("-") or not user.isprintable():
        with pytest.raises(ValueError, match="user"):
            Host("host", user)


@pytest.mark.parametrize("user", [f"root;touch${{IFS}}{BAIT}", f"$(touch${{IFS}}{BAIT})", "'", '"'])
@pytest.mark.parametrize("method", ["sudo", "su", "doas"])
def test_a_user_to_become_is_no_command(
    sshd: RealSshd, people: People, method: str, user: str
) -> None:
    host = people.host(sshd, "free")
    run = SshProcess(
        "true", host, become=user, become_method=method, nolog_error=True, pty=method == "su"
    ).run(PATIENCE)
    assert not run.ok
    assert not list(people.folder.rglob(BAIT))
    assert not Path("/root", BAIT).exists()


@pytest.mark.parametrize(
    "address", ["a b", "", "/run/docker.sock", "a\nb", "x:1 -oProxyCommand=y", "\x1b"]
)
def test_what_is_no_address_to_forward_to_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="remote_host is a name or an address"):
        PortForwarder("host", address, 80)
    if address:
        with pytest.raises(ValueError, match="bind_address is a name or an address"):
            PortForwarder("host", "localhost", 80, bind_address=address)


@pytest.mark.parametrize("address", [f"$(touch${{IFS}}{BAIT})", "]:22", "a:1:b", "-x", "[::1]:5"])
@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_an_address_to_forward_to_is_no_option(
    sshd: RealSshd, here: Path, transport: str, address: str
) -> None:
    params = {"transport": transport}
    host = sshd.hosts(1)[0]
    forwarder = PortForwarder(host, address, 9, None, None, params, nolog_error=True)
    forwarder.start()
    forwarder.forwarding.wait(0.3)
    forwarder.kill().wait(PATIENCE)
    assert not list((sshd.folder / "home").rglob(BAIT))


# -- the ssh command ------------------------------------------------------------------------------

FOR_SHELLS = [
    f"a$(touch${{IFS}}{BAIT})",
    f"a`touch${{IFS}}{BAIT}`",
    f"a;touch${{IFS}}{BAIT}",
    "a|b",
]


@pytest.mark.parametrize("name", FOR_SHELLS)
@pytest.mark.parametrize("tool", ["paramiko", "openssh", "auto", "taktuk", "scp"])
@pytest.mark.parametrize("what", ["host", "user"])
def test_a_name_is_no_command_of_a_proxy_command(
    here: Path, tmp_path: Path, tool: str, name: str, what: str
) -> None:
    """As CVE-2023-51385: ssh gives %h and %r to a shell. One before 9.6 does so with any name."""
    ran = tmp_path / "ran"
    for program in ("ssh", "scp"):
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch {ran}\nfor w; do eval : $w; done\n")
        (tmp_path / program).chmod(0o755)
    config = tmp_path / "config"
    config.write_text("ProxyCommand echo %h %r\n")
    user = name.replace("$", "") if what == "user" else None
    host = Host("127.0.0.1" if what == "user" else name, user)
    params: dict[str, Any] = {"ssh_config": config, "connect_timeout": 2}
    run: ProcessBase
    if tool == "scp":
        params["scp"] = str(tmp_path / "scp")
        run = Get([host], "x", "to", connection_params=params).run(PATIENCE).processes[0]
    elif tool == "taktuk":
        params["taktuk_connector"] = str(tmp_path / "ssh")
        run = TaktukRemote("true", [host], params).run(PATIENCE).processes[0]
    else:
        params |= {"transport": tool}
        if tool == "openssh":
            params["ssh"] = str(tmp_path / "ssh")
        run = SshProcess("true", host, params, nolog_error=True).run(PATIENCE)
    assert not run.ok
    assert not ran.exists()
    assert "cannot be part of a command" in run.message or "for one host" in run.message


@pytest.mark.parametrize("tool", [*TRANSPORTS, "scp"])
def test_the_name_of_a_key_file_is_a_name(
    sshd: RealSshd, here: Path, tmp_path: Path, tool: str
) -> None:
    name = f"-k'$(touch {BAIT})`touch {BAIT}`;touch {BAIT};\"\\ %h %% é"
    key = tmp_path / name
    shutil.copy(sshd.keyfile, key)
    key.chmod(0o600)
    plain = sshd.hosts(1)[0]
    host = Host(plain.address, plain.user, key, plain.port)
    if tool == "scp":
        (home_of(sshd, host) / "f").write_text("x")
        run = Get([host], "f", "f", connection_params={"scp": "scp"}).run(PATIENCE).processes[0]
    else:
        run = process_of(host, tool, "true")
    assert run.ok, run.dump()


@pytest.mark.parametrize("user", ["other.host:x", "a:b", "a/b"])
def test_a_user_does_not_lead_scp_to_another_host(here: Path, tmp_path: Path, user: str) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "scp").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (tmp_path / "scp").chmod(0o755)
    Path("f").touch()
    params = {"scp": str(tmp_path / "scp")}
    run = Put([Host("web1", user)], "f", connection_params=params).run(PATIENCE).processes[0]
    assert not run.ok
    assert not ran.exists()
    assert "scp would misread" in run.message


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_agent_is_forwarded_unless_asked(
    sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    done = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True)
    found = re.findall(r"(SSH_AUTH_SOCK|SSH_AGENT_PID)=([^;]+)", done.stdout)
    variables = dict(found)
    monkeypatch.setenv("SSH_AUTH_SOCK", variables["SSH_AUTH_SOCK"])
    try:
        host = sshd.hosts(1)[0]
        run = process_of(host, transport, 'echo "[$SSH_AUTH_SOCK]"')
        assert run.stdout == "[]\n", run.dump()
        if transport == "openssh":
            asked = SshProcess(
                'echo "[$SSH_AUTH_SOCK]"', host, {"ssh_options": ("-A",), "transport": transport}
            ).run(PATIENCE)
            assert asked.stdout.startswith("[/"), asked.dump()
        elif transport == "paramiko":
            config = tmp_path / "config"
            config.write_text("ForwardAgent yes\n")
            params = {"transport": transport, "ssh_config": config}
            filed = SshProcess('echo "[$SSH_AUTH_SOCK]"', host, params).run(PATIENCE)
            assert filed.stdout == "[]\n", filed.dump()
    finally:
        transports.close_idle()
        os.kill(int(variables["SSH_AGENT_PID"]), 15)


# -- names of files -------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [None, "rsync"])
def test_names_of_files_are_names(hosts: FolderHosts, tmp_path: Path, tool: str | None) -> None:
    options: dict[str, Any] = {} if tool is None else {"tool": tool}
    home = hosts.home("web1")
    shutil.rmtree("there", ignore_errors=True)

    @examples(12 if tool is None else 5)
    @given(name=file_name, other=file_name)
    def check(name: str, other: str) -> None:
        for folder in ("from", "to"):
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir()
        shutil.rmtree(home / "there", ignore_errors=True)
        (home / "there").mkdir()
        Path("from", name).write_text(name, errors="surrogateescape")
        here_name, there_name = _written(f"from/{name}"), _written(f"there/{other}")
        Put(hosts("web1"), here_name, there_name, **options).run(PATIENCE).raise_if_failed()
        assert os.listdir(home / "there") == [other]
        back = Get(hosts("web1"), there_name, "to/", **options).run(PATIENCE)
        back.raise_if_failed()
        assert os.listdir("to") == [other]
        assert Path("to", other).read_bytes() == os.fsencode(name)

    for name in FILE_NAMES:
        check.hypothesis.inner_test(name, name)
    check()
    assert not list(tmp_path.rglob(BAIT))


def _written(name: str) -> Any:
    from execo import raw

    return raw(name)


@pytest.mark.parametrize("tool", ["paramiko", "openssh", "taktuk", "scp", "rsync"])
def test_names_of_files_are_names_over_every_transport(
    sshd: RealSshd, here: Path, tool: str
) -> None:
    from execo import TaktukPut

    host = sshd.hosts(1)[0]
    Path("all").mkdir()
    for name in FILE_NAMES:
        Path("all", name).write_text("x")
    folder = f"to-{tool} '$(touch {BAIT})`touch {BAIT}`;touch {BAIT}"
    names = [_written(f"all/{name}") for name in FILE_NAMES if not re.search(r"[*?[\\]", name)]
    if tool == "taktuk":
        put: Any = TaktukPut([host], names, _written(f"{folder}/"))
    elif tool == "scp":
        (home_of(sshd, host) / folder).mkdir(mode=0o777)
        os.chmod(home_of(sshd, host) / folder, 0o777)
        put = Put([host], names, _written(folder), connection_params={"scp": "scp"})
    elif tool == "rsync":
        put = Put([host], names, _written(f"{folder}/"), tool="rsync")
    else:
        params = {"transport": tool}
        put = Put([host], names, _written(f"{folder}/"), connection_params=params)
    put.run(PATIENCE).raise_if_failed()
    found = os.listdir(home_of(sshd, host) / folder)
    assert sorted(found) == sorted(name.removeprefix("all/") for name in names)
    assert not list((sshd.folder / "home").rglob(BAIT))


# -- the threat model -----------------------------------------------------------------------------

NAMED = re.compile(r"``(test_\w+\.py)::(\w+)``")


def threat_model() -> list[str]:
    """The lines of the page that make a claim: those of its lists."""
    text = (ROOT / "doc" / "security.rst").read_text(encoding="utf-8")
    lines: list[str] = re.findall(r"(?m)^:[A-Z]\d+: .+\n(?:    .+\n)*", text)
    return lines


def test_every_line_of_the_threat_model_has_its_test() -> None:
    lines = threat_model()
    assert len(lines) > 40
    assert [line for line in lines if not NAMED.search(line)] == []
    numbers = [line.split()[0] for line in lines]
    assert len(set(numbers)) == len(numbers)


def test_the_tests_that_the_threat_model_names_exist() -> None:
    text = (ROOT / "doc" / "security.rst").read_text(encoding="utf-8")
    named = NAMED.findall(text)
    assert len(named) == text.count("``test_"), "a test is not written ``file.py::name``"
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / "tests" / file).exists()
        or not re.search(
            rf"(?m)^(async )?def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8")
        )
    ]
    assert missing == []
