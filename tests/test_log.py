"""The logger "execo": where its messages go, how they look, and text for a terminal."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import execo.log
from execo.config import configuration
from execo.log import Logger, compact_output, escape_controls, logger, style, use_color

ROOT = Path(execo.log.__file__).parents[1]
DATE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"


def script(code: str, home: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """A user's script, in an interpreter of its own: pytest gives the root logger handlers."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def alone() -> Iterator[None]:
    """No handler on the root logger, as in a plain script.

    Not a fixture: pytest adds its handlers after the fixtures.
    """
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []
    level = logger.level
    try:
        yield
    finally:
        root.handlers = kept
        logger.setLevel(level)


@pytest.fixture
def colors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "color_mode", True)


# -- where messages go ---------------------------------------------------------------------------


def test_by_default_warnings_go_to_stderr_and_nothing_else_anywhere(tmp_path: Path) -> None:
    done = script(
        """
        import logging
        from execo.log import logger
        logger.info("all is well")
        logger.warning("%s is down", "web1", extra={"execo_host": "web1"})
        print(logging.getLogger().handlers, logger.propagate)
        """,
        tmp_path,
    )
    assert done.stdout == "[] True\n"
    assert re.fullmatch(rf"{DATE} WARNING: web1 is down\n", done.stderr)


def test_the_level_comes_from_the_users_file(tmp_path: Path) -> None:
    file = tmp_path / ".execo.conf.py"
    file.write_text("configuration = {'log_level': 'DETAIL'}\n")
    file.chmod(0o644)
    done = script("from execo.log import logger; logger.detail('x'); logger.trace('y')", tmp_path)
    assert re.fullmatch(rf"{DATE} DETAIL: x\n", done.stderr)


def test_with_handlers_on_the_root_logger_a_message_appears_once(tmp_path: Path) -> None:
    done = script(
        """
        import logging
        from execo.log import logger
        logger.warning("before")
        logging.basicConfig(format="root: %(message)s")
        logger.warning("after")
        logging.getLogger().handlers.clear()
        logger.warning("again")
        logging.getLogger().addHandler(logging.NullHandler())
        logger.warning("still")
        logging.basicConfig(format="root: %(message)s", force=True)
        logger.propagate = False
        logger.warning("alone")
        """,
        tmp_path,
    )
    shown = [re.sub(f"^{DATE} WARNING", "execo", line) for line in done.stderr.splitlines()]
    assert shown == ["execo: before", "root: after", "execo: again", "execo: still", "execo: alone"]


def test_what_the_script_set_up_before_the_import_is_kept(tmp_path: Path) -> None:
    done = script(
        """
        import logging.config
        logging.config.dictConfig({
            "version": 1,
            "formatters": {"mine": {"format": "mine: %(message)s"}},
            "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "mine"}},
            "loggers": {"execo": {"level": "DEBUG", "handlers": ["err"]}},
        })
        from execo.log import logger
        logger.debug("seen")
        logger.detail("seen too")
        logger.trace("also seen")
        logger.fdebug("too low")
        """,
        tmp_path,
    )
    assert done.stderr.splitlines() == ["mine: seen", "mine: seen too", "mine: also seen"]


def test_a_logger_of_the_scripts_own_class_keeps_it(tmp_path: Path) -> None:
    done = script(
        """
        import logging
        class Mine(logging.Logger):
            def shout(self, text): self.error(text.upper())
        logging.setLoggerClass(Mine)
        first = logging.getLogger("execo")
        from execo.log import logger
        assert logger is first and isinstance(logger, Mine)
        logger.shout("loud")
        logger.detail("silent")
        """,
        tmp_path,
    )
    assert re.fullmatch(rf"{DATE} ERROR: LOUD\n", done.stderr)


@alone()
def test_stderr_is_looked_up_when_the_message_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger.warning("captured")
    assert capsys.readouterr().err.endswith(" WARNING: captured\n")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logger.warning("redirected")
    assert stream.getvalue().endswith(" WARNING: redirected\n")
    monkeypatch.setattr(sys, "stderr", None)
    logger.warning("lost without harm")
    monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


def test_records_reach_the_handlers_of_the_script_with_host_and_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger.warning("x", extra={"execo_host": "web1", "execo_process": 42})
    (record,) = caplog.records
    assert (vars(record)["execo_host"], vars(record)["execo_process"]) == ("web1", 42)


# -- levels and children -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"), [("IODEBUG", 3), ("FDEBUG", 5), ("TRACE", 12), ("DETAIL", 15)]
)
def test_each_level_has_a_method_which_is_not_taken_for_the_caller(
    name: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    def helper() -> None:
        getattr(logger, name.lower())("%d%s", 1, "x", stacklevel=2)

    with caplog.at_level(name, "execo"):
        getattr(logger, name.lower())("%d%s", 1, "x")
        helper()
    here = "test_each_level_has_a_method_which_is_not_taken_for_the_caller"
    assert [
        (record.levelno, record.levelname, record.message, record.funcName)
        for record in caplog.records
    ] == [(number, name, "1x", here)] * 2
    caplog.clear()
    with caplog.at_level(number + 1, "execo"):
        getattr(logger, name.lower())("not shown")
    assert caplog.records == []


@alone()
def test_child_loggers_inherit_level_output_and_methods(
    capsys: pytest.CaptureFixture[str],
) -> None:
    child = logger.getChild("engine")
    assert child is execo.log.get_logger("execo.engine") is logging.getLogger("execo.engine")
    assert isinstance(child, Logger)
    logger.setLevel("DETAIL")
    child.detail("from the child")
    child.trace("below the level")
    assert re.fullmatch(rf"{DATE} DETAIL: from the child\n", capsys.readouterr().err)


# -- how messages look ---------------------------------------------------------------------------


@alone()
@pytest.mark.parametrize(
    ("level", "header"),
    [
        ("INFO", "WARNING"),
        ("TRACE", "WARNING"),
        ("DEBUG", "WARNING test_the_level_of_the_logger_decides_the_format"),
        ("FDEBUG", "WARNING MainThread test_the_level_of_the_logger_decides_the_format"),
        ("IODEBUG", "WARNING MainThread test_the_level_of_the_logger_decides_the_format"),
    ],
)
def test_the_level_of_the_logger_decides_the_format(
    level: str, header: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.setLevel(level)
    logger.warning("x")
    assert re.fullmatch(rf"{DATE} {header}: x\n", capsys.readouterr().err)


@alone()
def test_an_exception_is_shown_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise RuntimeError("the cause")
    except RuntimeError:
        logger.exception("failed")
    assert re.fullmatch(
        rf"{DATE} ERROR: failed\nTraceback [\s\S]*RuntimeError: the cause\n",
        capsys.readouterr().err,
    )


@pytest.mark.usefixtures("colors")
@alone()
def test_colored_messages(capsys: pytest.CaptureFixture[str]) -> None:
    logger.warning("x")
    shown = capsys.readouterr().err
    assert re.fullmatch(rf"\x1b\[33m{DATE}\x1b\[0m \x1b\[35;1mWARNING\x1b\[0m: x\n", shown)


@pytest.mark.usefixtures("colors")
@alone()
def test_a_color_that_does_not_exist_does_not_lose_the_message(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "color_styles", {logging.WARNING: ("pink",)})
    logger.warning("x")
    assert re.fullmatch(rf"{DATE} WARNING: x\n", capsys.readouterr().err)


# -- colours -------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.TextIOWrapper]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        yield stream
    os.close(master)


def test_colors_are_for_terminals_only(terminal: io.TextIOWrapper, tmp_path: Path) -> None:
    assert use_color(terminal) is True
    with open(tmp_path / "log", "w") as file:
        assert use_color(file) is False
    assert use_color(file) is False  # closed
    assert use_color(io.StringIO()) is False
    assert use_color(None) is False


def test_no_color_and_dumb_terminals_are_respected(
    terminal: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert use_color(terminal) is False
    monkeypatch.setenv("NO_COLOR", "")
    assert use_color(terminal) is True
    monkeypatch.setenv("TERM", "dumb")
    assert use_color(terminal) is False


def test_color_mode_decides_when_it_is_set(
    terminal: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "color_mode", False)
    assert use_color(terminal) is False
    monkeypatch.setitem(configuration, "color_mode", True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert use_color(io.StringIO()) is True


@pytest.mark.usefixtures("colors")
def test_styles_color_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert style.host("web1") == style.set("host", "web1") == "\x1b[35;1mweb1\x1b[0m"
    assert style.set(logging.ERROR, 3) == "\x1b[31;1m3\x1b[0m"
    assert style.emph("") == ""
    assert style.unheard_of("as it is") == "as it is"
    monkeypatch.setitem(configuration["color_styles"], "mine", ("bright_red", "on_black"))
    assert style.mine("x") == "\x1b[91;40mx\x1b[0m"
    assert not hasattr(style, "_repr_html_")


def test_styles_leave_text_alone_without_colors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert style.host("web1") == "web1"
    assert style.set("user1", 3) == "3"


# -- text for a terminal -------------------------------------------------------------------------


def test_long_output_is_shortened_to_head_and_tail() -> None:
    text = "a" * 3000 + "b" * 3000
    assert compact_output(text) == (
        "a" * 2048 + "\n[...] 1904 characters left out [...]\n" + "b" * 2048
    )
    assert compact_output(text, 0) == text
    assert compact_output("abcde", 3) == "ab\n[...] 2 characters left out [...]\ne"
    assert compact_output("abcde", 1) == "a\n[...] 4 characters left out [...]\n"


def test_the_configured_threshold_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "compact_output_threshold", 0)
    assert compact_output("x" * 10000) == "x" * 10000
    monkeypatch.setitem(configuration, "compact_output_threshold", 4)
    assert compact_output("x" * 10000).startswith("xx\n[...] 9996 ")


@given(st.text(alphabet="ab\n"), st.integers(0, 20))
def test_nothing_is_left_out_unsaid(text: str, threshold: int) -> None:
    shown = compact_output(text, threshold)
    if threshold == 0 or len(text) <= threshold:
        assert shown == text
        return
    head, said, tail = re.split(r"\n\[\.\.\.\] (\d+) characters left out \[\.\.\.\]\n", shown)
    assert text.startswith(head)
    assert text.endswith(tail)
    assert len(head) + int(said) + len(tail) == len(text)
    assert len(head) + len(tail) == threshold


def test_control_characters_cannot_drive_the_terminal() -> None:
    assert escape_controls("\x1b]0;owned\x07\x1b[2J") == r"\x1b]0;owned\x07\x1b[2J"
    assert escape_controls("fine\rFAKE\x7f\x9b31m\x00") == r"fine\x0dFAKE\x7f\x9b31m\x00"
    assert escape_controls("a\tb\nc\r\nd é 漢 ") == "a\tb\nc\nd é 漢 "
    assert escape_controls(b"\xff\xe9".decode(errors="surrogateescape")) == r"\xff\xe9"


@given(st.text())
def test_no_control_character_passes(text: str) -> None:
    shown = escape_controls(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\udc80-\udcff]", shown)
    assert escape_controls(shown) == shown
