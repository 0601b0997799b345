"""``execo put``, ``get``, ``hosts``, ``report``, ``sweep``, ``completion``, ``shell``."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import environment, execo
from execo import Remote
from execo.cli.choosing import connection_params
from execo.cli.parser import make_parser
from execo.engine import ParamSweeper, Record, sweep
from execo.testing import Cluster

SAMPLES = Path(__file__).resolve().parent.parent / "examples" / "doc_command_line.sh"

GROUPS = """
[Main]
default: local
[local]
map: [ "$GROUP" = gpu ] && echo host[1-2] || { [ "$GROUP" = old ] && echo host3; }
all: echo host[1-3]
list: echo old gpu
[racks]
map: echo host$GROUP
list: echo 1 2
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(4) as made:
        yield made


@pytest.fixture
def words(cluster: Cluster) -> list[str]:
    return ["--ssh-config", str(cluster.folder / "ssh_config")]


@pytest.fixture
def groups(tmp_path: Path) -> dict[str, str]:
    """An environment with groups."""
    (tmp_path / "groups.conf").write_text(GROUPS)
    return environment(CLUSTERSHELL_CFGDIR=str(tmp_path))


# -- files ---------------------------------------------------------------------------------------


def test_files_go_to_hosts_and_come_back(
    words: list[str], cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "two.txt").write_text("two")
    execo("put", "-w", "host[1-2]", *words, "one.txt", "two.txt", "--dest", "new", cwd=tmp_path)
    assert (cluster.home(1) / "new" / "two.txt").read_text() == "two"
    execo("get", "-w", "host[1-2]", *words, "new/one.txt", "-d", "back", cwd=tmp_path)
    assert (tmp_path / "back" / "host2" / "one.txt").read_text() == "one"
    done = execo(
        *("get", "-w", "host[1-3]", *words, "new/one.txt", "-d", "{{{host}}}.d", "--json"),
        cwd=tmp_path,
        status=1,
    )
    assert (tmp_path / "host1.d").exists()
    rows = {row["host"]: row["ok"] for row in map(json.loads, done.stdout.splitlines())}
    assert rows == {"host1": True, "host2": True, "host3": False}
    assert re.search(rb"execo: host3: .*new/one.txt", done.stderr)


def test_hosts_pass_files_on(words: list[str], cluster: Cluster, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8000
    (tmp_path / "large").write_bytes(data)
    execo("put", "-w", "host[1-3]", *words, "large", "--broadcast", cwd=tmp_path)
    for at in range(3):
        assert (cluster.home(at) / "large").read_bytes() == data
    done = execo(
        *("put", "-w", "host[1-3]", *words, "large", "--broadcast", "--rsync"),
        cwd=tmp_path,
        status=2,
    )
    assert b"rsync" in done.stderr


def test_bad_files(words: list[str], tmp_path: Path) -> None:
    done = execo("put", "-w", "host1", *words, status=2)
    assert b"no files: give their names" in done.stderr
    done = execo("put", "-w", "host1", *words, "missing.txt", status=255, cwd=tmp_path)
    assert b"missing.txt" in done.stderr
    done = execo("get", "-w", "host1", *words, "", status=2)
    assert b"is empty" in done.stderr


# -- node sets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["node[1-5]!node3", "web"], "node[1-2,4-5],web\n"),
        (["-e", "n[8-10]"], "n8\nn9\nn10\n"),
        (["-c", "n[1-300]", "n[200-400]"], "400\n"),
        (["-s", " ", "n[1-3]", "-x", "n2"], "n1 n3\n"),
        (["-i", "n[3-9]", "n[1-5]"], "n[3-5]\n"),
        (["-x", "n1", "n1"], ""),
        (["-c", "-x", "n1", "n1"], "0\n"),
        (["@gpu"], "host[1-2]\n"),
        (["@*!@old"], "host[1-2]\n"),
        (["@racks:2"], "host2\n"),
        (["-l"], "@gpu\n@old\n"),
        (["-ll", "racks"], "@racks:1 host1\n@racks:2 host2\n"),
        (["-"], "node[1-2],other\n"),
    ],
)
def test_node_sets(words: list[str], printed: str, groups: dict[str, str]) -> None:
    done = execo("hosts", *words, env=groups, stdin=b"node1 node2\nother\n")
    assert done.stdout.decode() == printed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no node set"),
        (["node[3-1]"], "at character 6\n  node[3-1]\n       ^"),
        (["-l", "nosuch"], "the source 'nosuch' cannot be listed"),
        (["@nosuch:x"], "group cannot be resolved"),
    ],
)
def test_bad_node_sets(words: list[str], said: str, groups: dict[str, str]) -> None:
    assert said in execo("hosts", *words, env=groups, status=2).stderr.decode()


def test_hosts_are_chosen_by_groups_and_files(
    words: list[str], groups: dict[str, str], tmp_path: Path
) -> None:
    def chosen(*options: str, stdin: bytes | None = None) -> list[str]:
        done = execo("run", *options, *words, "-LN", "echo {{{host}}}", env=groups, stdin=stdin)
        return done.stdout.decode().split()

    assert chosen("-g", "gpu") == ["host1", "host2"]
    assert chosen("-a", "-X", "gpu") == ["host3"]
    assert chosen("-w", "host3,host1", "-x", "@racks:1") == ["host3"]
    (tmp_path / "hosts").write_text("# ours\nhost2 host1 # a comment\n\n")
    assert chosen("--hostfile", str(tmp_path / "hosts")) == ["host2", "host1"]
    assert chosen("--hostfile", "-", stdin=b"host[2-3]\n") == ["host2", "host3"]


# -- what experiments have left ------------------------------------------------------------------


def test_a_record_is_shown(cluster: Cluster, tmp_path: Path) -> None:
    quiet = {"nolog_exit_code": True}
    with Record(tmp_path / "run"):
        Remote("exit {{[0, 1, 1]}}", cluster.hosts[:3], cluster.params, process_args=quiet).run()
    text = execo("report", str(tmp_path / "run")).stdout.decode()
    assert "processes: 2 exit code, 1 ok" in text
    assert "127.0.0.[3-4] (2): exit 1: exited 1" in text
    facts = json.loads(execo("report", "--json", str(tmp_path / "run")).stdout)
    assert sorted(row["exit_code"] for row in facts["processes"]) == [0, 1, 1]
    execo("report", "--html", str(tmp_path / "page.html"), str(tmp_path / "run"))
    assert "127.0.0.3" in (tmp_path / "page.html").read_text()
    assert b"no record of a run" in execo("report", str(tmp_path), status=2).stderr


def test_a_sweep_is_shown_explained_and_retried(tmp_path: Path) -> None:
    folder = str(tmp_path / "sweep")
    sweeper = ParamSweeper(folder, sweep({"size": [1, 2], "kind": ["a", "b"]}), save_sweeps=True)
    for _ in range(3):
        one = sweeper.get_next()
        assert one is not None
        if one["kind"] == "a":
            sweeper.failed(one, "no disk")
        else:
            sweeper.done(one, result=7)
    sweeper.close()
    text = execo("sweep", "show", folder).stdout.decode()
    assert "4 combinations: 2 failed, 1 done, 1 to do" in text
    assert "  failed size=2 kind=a: no disk\n" in text
    rows = [
        json.loads(line) for line in execo("sweep", "show", "--json", folder).stdout.splitlines()
    ]
    assert [row["state"] for row in rows].count("failed") == 2
    told = execo("sweep", "explain", folder, "size=1", "kind=b").stdout.decode()
    assert "done" in told
    assert "result 7" in told
    again = execo("sweep", "retry", folder, "size=2")
    assert again.stdout == b"size=2 kind=a\n"
    assert b"2 to do" in execo("sweep", "show", folder).stdout
    assert execo("sweep", "retry", folder).stdout == b"size=1 kind=a\n"
    assert b"3 to do" in execo("sweep", "show", folder).stdout
    for words, said in (
        (["show", str(tmp_path / "nothing")], "no record"),
        (["retry", str(tmp_path)], "no record"),
        (["explain", folder, "size=9"], "no combination has size=9"),
        (["explain", folder, "size"], "FACTOR=VALUE"),
        (["dance", folder], "invalid choice"),
    ):
        assert said in execo("sweep", *words, status=2).stderr.decode()
    assert not (tmp_path / "nothing").exists()


# -- completion ----------------------------------------------------------------------------------


def test_bash_completes(tmp_path: Path) -> None:
    (tmp_path / "completion").write_bytes(execo("completion", "bash").stdout)
    script = f"""
        source {tmp_path}/completion
        COMP_WORDS=(execo sw) COMP_CWORD=1
        _shtab_execo execo sw execo; echo "${{COMPREPLY[@]}}"
        COMP_WORDS=(execo run --gath) COMP_CWORD=2
        _shtab_execo execo --gath run; echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["sweep", "--gather", "--gather-all"], done.stderr


def test_zsh_reads_its_completion(tmp_path: Path) -> None:
    text = execo("completion", "zsh").stdout
    assert text.startswith(b"#compdef execo")
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=text, check=True)


def test_completion_without_shtab_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "shtab.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = execo("completion", "bash", status=1, env=environment(PYTHONPATH=path))
    assert done.stderr == b"execo: completion needs shtab: pip install 'execo[cli]'\n"
    assert execo("completion", "fish", status=2).stdout == b""


# -- the prompt, without a terminal --------------------------------------------------------------


def test_commands_can_come_from_a_file(words: list[str], cluster: Cluster) -> None:
    typed = """
        echo $SSH_CONNECTION
        echo $SSH_CONNECTION
        =
        echo same
        +host3
        @
        -host1
        echo {{{host}}}
        @host1
        !echo here; exit 4
        exit 3
        quit
        echo never
    """
    given = "\n".join(line.strip() for line in typed.splitlines())
    done = execo("shell", "-w", "host[1-2]", *words, stdin=given.encode(), status=3)
    printed = done.stdout.decode().splitlines()
    assert len(set(printed[:4])) == 2  # the same connections again
    assert printed[4:9] == ["-" * 15, "host[1-2] (2)", "-" * 15, "same", "host[1-3] (3)"]
    assert "host3" in printed
    assert "here" in printed
    assert "never" not in printed
    assert b"execo: equal outputs together" in done.stderr
    assert b"execo: host1: exited 3" in done.stderr


def test_the_prompt_goes_on_after_bad_lines(words: list[str]) -> None:
    given = b"@node[3-\n+\n-host1\n!\necho {{nope}}\n?\necho still here\n"
    done = execo("shell", "-w", "host1", *words, stdin=given)
    assert done.stdout.endswith(b"host1: still here\n")
    assert b"COMMAND   run it on the hosts" in done.stdout
    told = done.stderr.decode()
    for text in (
        "at character 5",
        "no hosts after +",
        "no host would be left",
        "no command after !",
    ):
        assert text in told
    assert "name 'nope' is not defined" in told
    assert b"no host: give some" in execo("shell", status=2).stderr


def test_the_program_is_found_as_a_script() -> None:
    """What is installed calls the same function."""
    code = "import sys; from execo.cli import main; sys.exit(main(['--version']))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, check=True
    )
    assert done.stdout == execo("--version").stdout
    setup = (Path(__file__).parent.parent / "setup.cfg").read_text()
    assert "execo = execo.cli:main" in setup


def test_a_history_is_for_its_user_alone(tmp_path: Path) -> None:
    code = """
        import execo.cli.prompt as prompt
        with prompt._history():
            import readline
            readline.add_history("secret")
    """
    (tmp_path / "execo").mkdir()
    (tmp_path / "execo" / "history").write_text("old\n")
    (tmp_path / "execo" / "history").chmod(0o644)
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(XDG_STATE_HOME=str(tmp_path)),
        check=True,
    )
    path = tmp_path / "execo" / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" in path.read_text()


def test_the_samples_of_the_guide(cluster: Cluster, tmp_path: Path) -> None:
    config = (cluster.folder / "ssh_config").read_text().replace("Host host", "Host node")
    (tmp_path / "config").write_text(config)
    (tmp_path / ".execo.conf.py").write_text(
        f"default_connection_params = {{'ssh_config': {str(tmp_path / 'config')!r}}}\n"
    )
    (tmp_path / "setup.sh").write_text("true\n")
    notes = cluster.home(0) / "notes"
    notes.mkdir()
    (notes / "log").write_text("noted\n")
    script = SAMPLES.read_text()
    python = shlex.quote(sys.executable)
    done = subprocess.run(
        ["bash", "-c", f'execo() {{ {python} -m execo "$@"; }}\n{script}'],
        env=environment(HOME=str(tmp_path)),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "node1 has number 0" in done.stdout
    assert "node[1-4] (4)" in done.stdout
    assert done.stdout.endswith("node[1-2,4-40]\n3\n30\n")
    assert len((tmp_path / "uptime.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "logs" / "node4").read_text() == "noted\n"
    assert (tmp_path / "results" / "node3" / "log").read_text() == "noted\n"
    assert (cluster.home(3) / "bin" / "setup.sh").exists()


def test_a_password_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def getpass(prompt: str) -> str:
        asked.append(prompt)
        return "secret"

    monkeypatch.setattr("getpass.getpass", getpass)
    words = ["run", "-w", "a", "-k", "-K", "--become", "root", "-o", "Ciphers=aes128-ctr"]
    params = connection_params(make_parser().parse_args([*words, "-O", "keepalive=5", "true"]))
    assert [params["password"](host, "me") for host in ("a", "b")] == ["secret", "secret"]
    assert params["become_password"]("a", "root") == "secret"
    assert asked == [
        "password of me (on a and all others): ",
        "password to become root (on a and all others): ",
    ]
    assert params["ssh_options"] == ["-o", "Ciphers=aes128-ctr"]
    assert params["keepalive"] == 5
