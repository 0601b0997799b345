"""The configuration dicts, connection parameters, and ~/.execo.conf.py."""

from __future__ import annotations

import copy
import logging
import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import execo.config
from execo.config import (
    CHAINPUT,
    DETAIL,
    FDEBUG,
    IODEBUG,
    SCP,
    SSH,
    TAKTUK,
    TRACE,
    ConfigWarning,
    configuration,
    default_connection_params,
    default_connexion_params,
    load_configuration,
    make_connection_params,
    make_connexion_params,
)
from execo.errors import ConfigError

ROOT = Path(execo.config.__file__).parents[1]


@pytest.fixture(autouse=True)
def restored_dicts() -> Iterator[None]:
    """Each test finds the dicts as the built-in values make them, and leaves them so."""
    dicts = (configuration, default_connection_params)
    kept = [copy.deepcopy(one) for one in dicts]
    yield
    for one, before in zip(dicts, kept, strict=True):
        one.clear()
        one.update(before)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Where the file of a fresh home would be."""
    home = tmp_path / "home"
    home.mkdir()
    return home / ".execo.conf.py"


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    path.chmod(0o644)  # whatever the umask of whoever runs the tests
    return path


def script(code: str, home: str | Path | None) -> subprocess.CompletedProcess[str]:
    """A user's script, in an interpreter of its own."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ.pop("HOME")
    if home is not None:
        environ["HOME"] = str(home)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


# -- the defaults ------------------------------------------------------------------------------


def test_the_constants_are_those_of_execo_2() -> None:
    assert (SSH, SCP, TAKTUK, CHAINPUT) == (0, 1, 2, 3)
    assert (IODEBUG, FDEBUG, TRACE, DETAIL) == (3, 5, 12, 15)


def test_the_defaults_of_the_configuration() -> None:
    shown = {key: value for key, value in configuration.items() if key != "color_styles"}
    assert shown == {
        "log_level": logging.WARNING,
        "remote_tool": SSH,
        "fileput_tool": SCP,
        "fileget_tool": SCP,
        "compact_output_threshold": 4096,
        "kill_timeout": 60,
        "kill_childs_at_end": True,
        "term_timeout": 2.0,
        "drain_timeout": 0.5,
        "max_output": None,
        "handler_queue_size": 1048576,
        "max_failure_logs": 10,
        "port_range": (25500, 26700),
        "switch_interval": None,
        "intr_period": 1,
        "color_mode": None,
        "progress": None,
    }
    names = {"log_header", "object_repr", "emph", "report_warn", "report_error", "command", "host"}
    levels = {logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG}
    assert set(configuration["color_styles"]) == (
        names | {"user1", "user2", "user3"} | levels | {DETAIL, TRACE, FDEBUG, IODEBUG}
    )


def test_the_defaults_of_the_connection_params() -> None:
    assert default_connexion_params is default_connection_params
    assert default_connection_params == {
        "user": None,
        "keyfile": None,
        "password": None,
        "passphrase": None,
        "answers": None,
        "port": None,
        "transport": "auto",
        "host_key_policy": None,
        "ssh_config": None,
        "connect_timeout": 20,
        "keepalive": 30,
        "idle_limit": 600,
        "guard": True,
        "forwarding_timeout": 25,
        "pty": False,
        "become": None,
        "become_method": "sudo",
        "become_password": None,
        "host_rewrite_func": None,
        "ssh": None,
        "ssh_options": (),
        "scp": None,
        "scp_options": (),
        "taktuk": "taktuk",
        "taktuk_options": ("-s",),
        "taktuk_connector": "ssh",
        "taktuk_connector_options": (),
        "topology": None,
        "tree_fanout": 32,
        "nc": "/bin/nc.traditional -v -v",
        "chainput_nc_client_timeout": 5,
        "chainput_nc_server_timeout": 30,
        "chainput_host_retry": 5,
        "chainput_chain_retry": 10,
        "chainput_try_delay": 1,
    }


@pytest.mark.parametrize("name", ["configuration", "default_connection_params"])
def test_the_docs_can_include_the_literal_and_each_key_has_a_comment(name: str) -> None:
    text = Path(execo.config.__file__).read_text()
    literal = text.split(f"# _STARTOF_ {name}\n")[1].split(f"# _ENDOF_ {name}\n")[0]
    namespace: dict[str, Any] = {**vars(execo.config)}
    exec(literal, namespace)
    assert namespace[name] == getattr(execo.config, name)
    lines = literal.splitlines()
    keys = [i for i, line in enumerate(lines) if re.match(r' {4}"', line)]
    assert len(keys) == len(namespace[name])
    assert [lines[i] for i in keys if not lines[i - 1].startswith("    # ")] == []


def test_the_defaults_keep_their_own_rules_and_every_key_has_one(conf: Path) -> None:
    write(
        conf,
        """
        from execo.config import configuration, default_connection_params
        """,
    )
    before = copy.deepcopy((configuration, default_connection_params))
    assert (
        load_configuration(conf) is True
    )  # each key goes through the checks, filterwarnings=error
    assert (configuration, default_connection_params) == before


# -- make_connection_params --------------------------------------------------------------------


def test_given_params_win_over_the_defaults_and_those_over_the_built_in_values() -> None:
    default_connection_params["user"] = "root"
    default_connection_params["port"] = 2222
    params = make_connection_params({"user": "me"})
    assert (params["user"], params["port"], params["connect_timeout"]) == ("me", 2222, 20)
    # Other defaults replace the global ones, and the built-in values still complete them.
    params = make_connection_params({"pty": True}, {"user": "other"})
    assert (params["user"], params["port"], params["pty"]) == ("other", None, True)
    assert set(params) == set(default_connection_params)


def test_the_result_is_a_copy() -> None:
    params = make_connection_params()
    assert params == default_connection_params
    params["user"] = "root"
    assert default_connection_params["user"] is None


def test_the_name_with_an_x_is_the_same() -> None:
    assert make_connexion_params is make_connection_params


def test_a_mistyped_key_is_named_with_the_nearest_one_but_not_its_value() -> None:
    with pytest.raises(TypeError, match=r"'usr': did you mean 'user'\?"):
        make_connection_params({"usr": "root"})
    default_connection_params["connect_timout"] = 3
    with pytest.raises(TypeError, match=r"'connect_timout': did you mean 'connect_timeout'\?"):
        make_connection_params()
    with pytest.raises(TypeError, match="'zzz': the keys are: user, keyfile, ") as caught:
        make_connection_params(None, {"zzz": "secret"})
    assert "secret" not in str(caught.value)


def test_lists_of_options_become_tuples() -> None:
    params = make_connection_params({"ssh_options": ["-o", "Compression=yes"]})
    assert params["ssh_options"] == ("-o", "Compression=yes")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ssh_options", "-v"),
        ("port", "22"),
        ("port", 0),
        ("port", True),
        ("pty", None),
        ("host_key_policy", "Strict"),
        ("connect_timeout", -1),
        ("connect_timeout", float("nan")),
        ("keepalive", 0),
        ("idle_limit", "10 min"),
        ("ssh_config", True),
        ("ssh_config", ""),
        ("host_rewrite_func", "example.org"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"'{key}': expected .*, got {value!r}"):
        make_connection_params({key: value})


def test_values_of_execo_2_scripts_are_accepted() -> None:
    given = {
        "user": "root",
        "keyfile": Path("/root/.ssh/id_rsa"),
        "port": 6667,
        "ssh": "oarsh",
        "scp": "oarcp",
        "ssh_options": ("-tt", "-o", "BatchMode=yes"),
        "taktuk_connector": "oarsh",
        "pty": True,
        "host_rewrite_func": str.upper,
        "chainput_host_retry": 0.5,
    }
    params = make_connection_params(given)
    assert {key: params[key] for key in given} == given


# -- ~/.execo.conf.py, as a user's script meets it -----------------------------------------------

SHOW = """
    from execo.config import configuration, default_connection_params
    print(configuration["remote_tool"], default_connection_params["user"])
"""


def test_the_file_changes_the_defaults_of_a_script(conf: Path) -> None:
    write(
        conf,
        """
        import logging
        from execo.config import TAKTUK

        configuration = {
            "remote_tool": TAKTUK,
            "log_level": logging.DEBUG,
            "color_styles": {"host": ("cyan",), "mine": ("bold", "on_red")},
        }
        default_connexion_params = {"user": "root", "ssh_options": ["-4"]}
        """,
    )
    done = script(
        """
        from execo.config import configuration, default_connection_params as params
        print(configuration["remote_tool"], configuration["log_level"], params["user"])
        print(params["ssh_options"] + ("-v",))
        styles = configuration["color_styles"]
        print(styles["host"], styles["mine"], styles["emph"])
        """,
        conf.parent,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "2 10 root",
        "('-4', '-v')",
        "('cyan',) ('bold', 'on_red') ('magenta', 'bold')",
    ]


def test_the_file_may_edit_the_imported_dicts_in_place(conf: Path) -> None:
    write(
        conf,
        """
        from execo.config import *
        configuration["remote_tool"] = TAKTUK
        default_connexion_params["user"] = "root"
        """,
    )
    done = script(SHOW, conf.parent)
    assert (done.stdout, done.stderr) == ("2 root\n", "")


def test_both_spellings_in_one_file(conf: Path) -> None:
    write(
        conf,
        """
        default_connexion_params = {"user": "old", "port": 22}
        default_connection_params = {"user": "new"}
        """,
    )
    load_configuration(conf)
    assert (default_connection_params["user"], default_connection_params["port"]) == ("new", 22)


@pytest.mark.parametrize("home", ["/nonexistent/home", "", "/dev/null", None])
def test_without_a_home_nothing_is_read_and_nothing_is_said(home: str | None) -> None:
    # Without HOME, the home of the user database may hold a file of whoever runs the tests.
    fake = "import os; os.path.expanduser = lambda path: path\n" if home is None else ""
    done = script(fake + textwrap.dedent(SHOW), home)
    assert (done.stdout, done.stderr) == ("0 None\n", "")


def test_a_relative_home_does_not_run_what_lies_in_the_current_directory(
    conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(conf, "configuration = {'remote_tool': 2}\n")
    monkeypatch.chdir(conf.parent)
    done = script(SHOW, ".")
    assert (done.stdout, done.stderr) == ("0 None\n", "")


@pytest.mark.parametrize(
    ("text", "line", "cause", "message"),
    [
        ("x = 1\nconfiguration = {\n", 2, SyntaxError, "was never closed"),
        ("x = 1\n\nx = unknown_name\n", 3, NameError, "unknown_name"),
        ("def f():\n    return 1 / 0\n\nf()\n", 2, ZeroDivisionError, "division"),
        ("import json\njson.loads('{')\n", 2, ValueError, "JSONDecodeError"),
        ("import sys\nsys.exit()\n", 2, SystemExit, "correct the file, or move it away"),
        ("from execo.config import TAKTUKK\n", 1, ImportError, "TAKTUKK"),
        ("x = '\0'\n", None, (ValueError, SyntaxError), "null bytes"),
        ("# -*- coding: ascii -*-\nx = 'é'\n", None, SyntaxError, "codec"),
    ],
)
def test_an_error_in_the_file_names_file_and_line_and_keeps_its_cause(
    conf: Path,
    text: str,
    line: int | None,
    cause: type[Exception] | tuple[type[Exception], ...],
    message: str,
) -> None:
    write(conf, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_configuration(conf)
    assert caught.value.filename == str(conf)
    if line is not None:
        assert caught.value.lineno == line
        assert str(caught.value).startswith(f"{conf}:{line}: ")
    assert isinstance(caught.value.__cause__, cause)


def test_an_error_in_the_file_stops_the_import(conf: Path) -> None:
    write(conf, "x = 1\nx = unknown_name\n")
    done = script("import execo.config\nprint('went on')", conf.parent)
    assert done.stdout == ""
    assert done.returncode == 1
    assert last_line(done) == (
        f"execo.errors.ConfigError: {conf}:2: NameError: name 'unknown_name' is not defined; "
        "correct the file, or move it away"
    )
    assert "x = unknown_name" in done.stderr  # the traceback shows the cause too


@pytest.mark.parametrize(
    "text",
    [
        "from execo import TAKTUK\n",
        "import execo\nexeco.config.configuration['remote_tool'] = 2\n",
    ],
)
def test_the_file_is_told_to_import_from_execo_config(
    conf: Path, text: str, tmp_path: Path
) -> None:
    write(conf, text)
    # A package whose __init__ imports the configuration first, whatever else the real one does.
    package = tmp_path / "execo"
    package.mkdir()
    write(
        package / "__init__.py",
        f"""
        __path__.append({str(ROOT / "execo")!r})
        from execo.config import TAKTUK
        """,
    )
    done = script(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import execo", conf.parent)
    assert f"{conf}:{len(text.splitlines())}: " in last_line(done)
    assert "import from execo.config here" in last_line(done)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("configuration = {\n 'log_level': 'LOUD',\n}\n", 2, "'log_level'.*a log level.*'LOUD'"),
        ("configuration = dict(\n kill_timeout='1h')\n", 2, "'kill_timeout'.*seconds.*'1h'"),
        ("configuration = 3\n", 1, "configuration must be a dict, got 3"),
        ("from execo.config import *\nconfiguration['max_output'] = -1\n", 2, "'max_output'"),
        ("configuration = {'color_styles': {'host': ('pink',)}}\n", 1, "ANSI_CODES"),
        ("configuration = {'color_styles': {'host': 'red'}}\n", 1, "tuples of words"),
        ("configuration = {'port_range': (9, 2)}\n", 1, "first and the last port"),
        ("configuration = {'kill_childs_at_end': 'no'}\n", 1, "True or False"),
        ("default_connection_params = {'ssh_options': '-v'}\n", 1, "tuple of strings, got '-v'"),
        ("default_connexion_params = ['user']\n", 1, "default_connexion_params must be a dict"),
        ("x = 'port'\ndefault_connection_params = {'port': x}\n", 2, "got 'port'"),
    ],
)
def test_a_value_that_cannot_be_right_names_file_and_line(
    conf: Path, text: str, line: int, message: str
) -> None:
    write(conf, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_configuration(conf)
    assert (caught.value.filename, caught.value.lineno) == (str(conf), line)


@pytest.mark.parametrize("given", ["configuration = {'kill_timout': 3}", "execo.config.{}"])
def test_an_unknown_key_is_left_out_with_a_warning(conf: Path, given: str) -> None:
    if given.startswith("execo"):  # in place
        given = "from execo.config import configuration as c; c['kill_timout'] = 3"
    write(conf, f"x = 1\n{given}\n")
    with pytest.warns(ConfigWarning) as caught:
        load_configuration(conf)
    (warning,) = caught
    assert str(warning.message) == (
        "unknown key 'kill_timout' in configuration, ignored: did you mean 'kill_timeout'?"
    )
    assert (warning.filename, warning.lineno) == (str(conf), 2)
    assert "kill_timout" not in configuration


def test_an_unknown_connection_parameter_does_not_break_the_script_later(conf: Path) -> None:
    write(conf, "default_connection_params = {'ssh_scp_pty': True, 'user': 'root'}\n")
    done = script(
        """
        from execo.config import make_connection_params
        print(make_connection_params()["user"])
        """,
        conf.parent,
    )
    assert done.stdout == "root\n"
    assert f"{conf}:1: ConfigWarning: unknown key 'ssh_scp_pty'" in done.stderr


# -- who may have written the file ---------------------------------------------------------------

CONFIGURE = "configuration = {'remote_tool': 2}\n"


def not_run(path: Path) -> str:
    """The warning about a file that must not be run."""
    with pytest.warns(ConfigWarning) as caught:
        assert load_configuration(path) is False
    assert configuration["remote_tool"] == SSH
    (warning,) = caught
    return str(warning.message)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_not_run(conf: Path, mode: int) -> None:
    write(conf, CONFIGURE).chmod(mode)
    assert not_run(conf).endswith(f"chmod go-w {conf}")
    conf.chmod(0o644)
    assert load_configuration(conf) is True


def test_the_script_goes_on_without_the_file_and_says_so(conf: Path) -> None:
    write(conf, CONFIGURE).chmod(0o666)
    done = script(SHOW, conf.parent)
    assert done.stdout == "0 None\n"
    assert (
        f"ConfigWarning: not run: other users can write it; check it, then: chmod go-w {conf}"
        in (done.stderr)
    )


def test_a_directory_that_everybody_can_write_counts_unless_it_is_sticky(conf: Path) -> None:
    write(conf, CONFIGURE)
    conf.parent.chmod(0o777)
    assert not_run(conf).endswith(f"chmod o-w {conf.parent}")
    conf.parent.chmod(0o1777)
    assert load_configuration(conf) is True


def test_the_directory_behind_a_symbolic_link_counts_too(conf: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared dir"
    shared.mkdir()
    shared.chmod(0o777)
    conf.symlink_to(write(shared / "conf.py", CONFIGURE))
    assert not_run(conf).endswith(f"chmod o-w '{shared}'")
    shared.chmod(0o755)
    assert load_configuration(conf) is True


def owned_by(owner: int, user: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that are open belong to the one, and the script runs as the other."""
    real = os.fstat

    def fstat(fd: int) -> os.stat_result:
        status = list(real(fd))
        status[4] = owner
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", fstat)
    monkeypatch.setattr(os, "geteuid", lambda: user)


@pytest.mark.parametrize("user", [1000, 0])
def test_a_file_of_another_user_is_not_run(
    conf: Path, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(conf, CONFIGURE)
    owned_by(1001, user, monkeypatch)
    message = not_run(conf)
    assert f"belongs to user 1001, and you are user {user}" in message
    assert message.endswith(f"chown {user} {conf}")


def test_a_file_of_root_is_run(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(conf, CONFIGURE)
    owned_by(0, 1000, monkeypatch)
    assert load_configuration(conf) is True


# -- what is not a readable file -----------------------------------------------------------------


def test_what_cannot_be_read_is_an_error_that_names_it(conf: Path) -> None:
    conf.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory") as caught:
        load_configuration(conf)
    assert caught.value.filename == str(conf)
    assert isinstance(caught.value.__cause__, IsADirectoryError)


def test_a_symbolic_link_to_nothing_is_an_error(conf: Path) -> None:
    conf.symlink_to(conf.parent / "dotfiles" / "execo.conf.py")
    assert "cannot be read: No such file" in last_line(script(SHOW, conf.parent))


def test_a_fifo_does_not_hang_the_import(conf: Path) -> None:
    os.mkfifo(conf, 0o600)
    assert "not a regular file" in last_line(script(SHOW, conf.parent))


def test_a_home_that_cannot_be_searched_is_a_warning(conf: Path) -> None:
    write(conf, CONFIGURE)
    conf.parent.chmod(0)
    done = script(
        f"""
        import os
        from execo.config import load_configuration
        if os.geteuid() == 0:
            os.seteuid(65534)
        print(load_configuration({str(conf)!r}))
        """,
        "/nonexistent",
    )
    conf.parent.chmod(0o700)
    assert done.stdout == "False\n"
    assert f"{conf}:0: ConfigWarning: not run: its directory cannot be searched" in done.stderr


def test_another_file_can_be_loaded_and_must_exist(tmp_path: Path) -> None:
    assert load_configuration(write(tmp_path / "lab.py", CONFIGURE)) is True
    assert configuration["remote_tool"] == TAKTUK
    with pytest.raises(ConfigError, match="no such file"):
        load_configuration(tmp_path / "absent.py")


def test_the_file_may_load_another_one(conf: Path, tmp_path: Path) -> None:
    lab = write(tmp_path / "lab.py", CONFIGURE)
    write(conf, f"from execo.config import load_configuration\nload_configuration({str(lab)!r})\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_configuration(conf)
    assert configuration["remote_tool"] == TAKTUK


def test_the_import_is_light() -> None:
    """These two modules alone, without the rest of the package."""
    done = script(
        f"""
        import sys, threading, types
        package = types.ModuleType("execo")
        package.__path__ = [{str(ROOT / "execo")!r}]
        sys.modules["execo"] = package
        before = set(sys.modules)
        import execo.config, execo.log
        heavy = "asyncio dateutil ClusterShell paramiko inspect difflib ast shlex".split()
        print(sorted(set(heavy) & (set(sys.modules) - before)), threading.active_count())
        """,
        "/nonexistent",
    )
    assert (done.stdout, done.stderr) == ("[] 1\n", "")


@pytest.mark.parametrize(
    "text",
    ["-" * 200_000 + "1", "not " * 100_000 + "1", "a" + ".a" * 50_000],
    ids="signs words names".split(),
)
def test_a_file_that_no_parser_can_read_is_an_error_of_ours(conf: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(write(conf, f"x = {text}")))):
        load_configuration(str(conf))


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value", [10**5000, Unshowable(), "x" * 10**6], ids="number object text".split()
)
def test_a_wrong_value_that_cannot_be_shown(value: object) -> None:
    with pytest.raises(ValueError, match="expected a port") as caught:
        make_connection_params({"port": value})
    assert f"a {type(value).__name__}" in str(caught.value)
    assert len(str(caught.value)) < 2000
