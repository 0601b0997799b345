"""The guard of conftest.py, tried on tests that leak, in a pytest of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).with_name("conftest.py").read_text()


@pytest.fixture(autouse=True)
def same_conftest(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.replace("SETTLE = 10.0", "SETTLE = 0.3"))


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args, timeout=60)


def test_names_a_thread(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import threading

        stop = threading.Event()

        def test_leaks():
            threading.Thread(target=stop.wait, name="forgotten", daemon=True).start()

        def test_does_not():
            thread = threading.Thread(target=print, name="joined")
            thread.start()
            thread.join()
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*test_leaks*", "*left behind*", "*thread 'forgotten'*"])
    result.stdout.no_fnmatch_line("*joined*")


def test_names_a_descriptor(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os

        def test_leaks():
            os.open("/dev/zero", os.O_RDONLY)

        def test_does_not():
            os.close(os.open("/dev/full", os.O_RDONLY))
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*left behind*", "*descriptor * -> /dev/zero*"])
    result.stdout.no_fnmatch_line("*/dev/full*")


def test_names_a_child_a_zombie_and_an_orphan(pytester: pytest.Pytester) -> None:
    # All three end by themselves with the inner pytest, which holds the pipe's other end.
    pytester.makepyfile(
        """
        import os, subprocess

        end, hold = os.pipe()
        left = []

        def test_leaks_a_child():
            left.append(subprocess.Popen(["sed", "s/the/child/"], stdin=end))

        def test_leaks_a_zombie():
            left.append(subprocess.Popen(["true"]))

        def test_leaks_an_orphan():
            subprocess.run(["sh", "-c", "exec 3<&0; sed s/the/orphan/ <&3 &"], stdin=end)

        def test_does_not():
            subprocess.run(["true"])
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=4, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*test_leaks_a_child*",
            "*  child process *: sed s/the/child/*",
            "*test_leaks_a_zombie*",
            "*  zombie child process *",
            "*test_leaks_an_orphan*",
            "*  orphan process *: sed s/the/orphan/*",
        ]
    )


def test_waits_for_what_is_ending(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import threading

        def test_ends_soon():
            threading.Timer(0.05, print).start()
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_leaves_the_runtime_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, subprocess, threading

        end, hold = os.pipe()
        stop = threading.Event()
        left = []

        def test_runtime():
            for name in ("execo-io", "execo-start", "execo-handler-3"):
                threading.Thread(target=stop.wait, name=name, daemon=True).start()
            command = ["/bin/sh", "-c", "read x", "execo-watchdog"]
            left.append(subprocess.Popen(command, stdin=end))
        """
    )
    run(pytester).assert_outcomes(passed=1)


def test_the_home_and_the_environment_are_clean(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECO_ANYTHING", "1")
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    pytester.makepyfile(
        f"""
        import os

        # While modules are imported, too.
        assert os.listdir(os.path.expanduser("~")) == []

        def test_clean():
            assert os.environ["HOME"] != {str(pytester.path)!r}
            assert not [name for name in os.environ if name.startswith(("EXECO_", "SSH_"))]
        """
    )
    run(pytester).assert_outcomes(passed=1)


SKIPS = {
    "a test": "@pytest.mark.skip(reason='no server here')\ndef test_one(): pass",
    "in a test": "def test_one(): pytest.skip('no server here')",
    "a module": "pytest.skip('no server here', allow_module_level=True)",
    "a missing module": "pytest.importorskip('nowhere', reason='no server here')",
}


@pytest.mark.parametrize("skip", SKIPS.values(), ids=SKIPS)
def test_a_skip_is_a_failure_in_ci(
    skip: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(f"import pytest\n{skip}")

    monkeypatch.setenv("CI", "true")
    result = run(pytester)
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*no test may be skipped under CI=true*no server here*"])

    monkeypatch.delenv("CI")
    run(pytester).assert_outcomes(skipped=1)


def test_an_expected_failure_is_no_skip(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.xfail(reason="known")
        def test_one():
            assert False
        """
    )
    result = run(pytester)
    result.assert_outcomes(xfailed=1)
    assert result.ret == pytest.ExitCode.OK
