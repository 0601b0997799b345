"""Pictures of runs: what they show, by their dots, texts and files."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from execo.engine import (
    HashableDict,
    ParamSweeper,
    ResultRow,
    Run,
    draw_results,
    draw_sweep,
    draw_timeline,
    load,
    save_picture,
    sweep,
)
from execo.engine.drawing import inline_svg, level_text, natural, plain_text
from execo.engine.grouping import grouped, measured
from pixels import Shown
from sample_runs import HOSTILE, busy_run, process, run_of, swept_run

BLUE, CYAN, RED, YELLOW, PURPLE = "#4477aa", "#66ccee", "#ee6677", "#ccbb44", "#aa3377"
GREY, PAPER = "#bbbbbb", "#fefefe"
TO_DO = "#e8e9ea"


def texts(figure: Figure) -> list[str]:
    """All that is written on it, as it stands there."""
    from matplotlib.text import Text

    return [one.get_text() for one in figure.findobj(Text) if one.get_text()]


def legend(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.legends[0].get_texts()]


def rows(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.axes[0].get_yticklabels()]


def columns(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.axes[0].get_xticklabels()]


def curves(figure: Figure) -> list[Any]:
    return [line for line in figure.axes[0].lines if line.get_linestyle() != "None"]


# -- the timeline ----------------------------------------------------------------------------------


def test_a_bar_for_each_process_from_its_start_to_its_end() -> None:
    figure = draw_timeline(
        run_of(
            process(0, "b", 0, 40),
            process(1, "a", 20, 60, outcome="exit code"),
            process(2, "b", 60, 100, outcome="timeout"),
            process(3, None, 10, 30, outcome="connect"),
        )
    )
    shown = Shown(figure)
    assert rows(figure) == ["(this machine)", "a", "b"]
    assert [shown.at(time, 2) for time in (20, 50, 80)] == [BLUE, PAPER, YELLOW]
    assert [shown.at(time, 1) for time in (10, 40, 90)] == [PAPER, RED, PAPER]
    assert [shown.at(time, 0) for time in (5, 20, 35)] == [PAPER, PURPLE, PAPER]
    assert legend(figure) == ["ok 1", "exit code 1", "timeout 1", "connect 1"]
    assert "seconds since 2026-11-18 11:06:40 UTC" in texts(figure)


def test_processes_at_the_same_time_share_the_row() -> None:
    figure = draw_timeline(
        run_of(
            process(0, "a", 0, 100),
            process(1, "a", 10, 50, outcome="exit code"),
            process(2, "a", 60, 90, outcome="signal"),  # where the one before it was
            process(3, "b", 0, 100),
        )
    )
    shown = Shown(figure)
    assert [shown.at(30, -0.2), shown.at(30, 0.2)] == [BLUE, RED]
    assert [shown.at(55, -0.2), shown.at(55, 0.2)] == [BLUE, PAPER]
    assert shown.at(75, 0.2) == YELLOW
    assert [shown.at(50, 0.7), shown.at(50, 1.3)] == [BLUE, BLUE]


def test_what_failed_is_never_hidden() -> None:
    moments = [process(n, "a", 10 * n, 10 * n + 10, outcome="ok") for n in range(1000)]
    failed = process(1000, "a", 5005, 5005.001, outcome="exit code")
    shown = Shown(draw_timeline(run_of(*moments, failed)))
    assert shown.count(RED) > 20  # half a point wide, half a row high
    of_many = Shown(draw_timeline(run_of(*busy_run(4000, 400).processes, failed)))
    assert of_many.count(RED) > 0


def test_what_runs_goes_to_the_end_of_what_is_known() -> None:
    figure = draw_timeline(
        run_of(process(0, "a", 0, None, outcome="running"), process(1, "b", 10, 100))
    )
    shown = Shown(figure)
    assert [shown.at(time, 0) for time in (1, 50, 99)] == [CYAN] * 3
    assert legend(figure) == ["ok 1", "running 1"]


def test_one_process_of_no_time_is_seen() -> None:
    assert Shown(draw_timeline(run_of(process(0, "a", 0, 0)))).count(BLUE) > 20
    running = draw_timeline(run_of(process(0, "a", 0, None, outcome="running")))
    assert Shown(running).count(CYAN) > 20


def test_hosts_are_in_the_order_of_their_numbers_without_what_they_share() -> None:
    names = ["node-10", "node-9", "node-1", "other-2"]
    found = [process(n, f"{name}.lyon.example.org", 0, 1) for n, name in enumerate(names)]
    figure = draw_timeline(run_of(*found))
    assert rows(figure) == ["node-1", "node-9", "node-10", "other-2"]
    assert "*.lyon.example.org" in texts(figure)
    addresses = draw_timeline(
        run_of(process(0, "10.0.0.2", 0, 1), process(1, "10.1.0.2", 0, 1), process(2, "::1", 0, 1))
    )
    assert rows(addresses) == ["10.0.0.2", "10.1.0.2", "::1"]


@pytest.mark.parametrize(("span", "unit"), [(60, "seconds"), (1800, "minutes"), (9000, "hours")])
def test_times_are_in_units_that_one_says(span: float, unit: str) -> None:
    figure = draw_timeline(run_of(process(0, "a", 0, span)))
    assert any(text.startswith(f"{unit} since ") for text in texts(figure))
    # The axis counts them.
    size = {"seconds": 1, "minutes": 60, "hours": 3600}[unit]
    assert figure.axes[0].get_xlim()[1] == pytest.approx(span / size, rel=0.05)


def test_names_do_not_touch_however_many_hosts() -> None:
    found = [process(n, f"node-{n + 1}", 0, 1) for n in range(700)]
    figure = draw_timeline(run_of(*found))
    Shown(figure)
    boxes = [one.get_window_extent() for one in figure.axes[0].get_yticklabels()]
    assert 30 < len(boxes) < 120
    assert all(upper.y0 >= lower.y1 for upper, lower in itertools.pairwise(boxes))
    assert any("700 hosts, one name in" in text for text in texts(figure))
    assert figure.get_size_inches()[1] < 11


def test_no_process_is_said_to_be_none() -> None:
    assert texts(draw_timeline(run_of())) == ["no processes"]
    waiting = run_of(process(0, "a", None, None, outcome="running"))
    assert texts(draw_timeline(waiting)) == ["no process has started, of 1"]


def test_odd_times_do_no_harm() -> None:
    figure = draw_timeline(
        run_of(
            process(0, "a", 50, 10),  # the clock was set back
            process(1, "a", float("nan"), 10),
            process(2, "a", None, None, outcome="connect"),
            process(3, "a", 0, float("inf")),
            process(4, "b", 0, 100, outcome="an outcome of tomorrow"),
        )
    )
    shown = Shown(figure)
    assert shown.at(50, 1) == RED
    assert "an outcome of tomorrow 1" in legend(figure)
    assert any("not shown: 2 without a start" in text for text in texts(figure))


def test_a_title_and_a_size() -> None:
    figure = draw_timeline(busy_run(10), width=4, height=3, title="Costs $5")
    assert tuple(figure.get_size_inches()) == (4, 3)
    assert "Costs $5" in texts(figure)
    Shown(figure)


# -- the matrix ------------------------------------------------------------------------------------

TOOLS = {"tool": ["gzip", "bzip2"], "level": [1, 9, 5]}


def test_a_cell_has_the_colour_of_its_state() -> None:
    run = swept_run(
        TOOLS,
        {("gzip", 1): [1]},
        states={
            ("gzip", 5): "failed",
            ("gzip", 9): "in progress",
            ("bzip2", 1): "skipped",
        },
    )
    figure = draw_sweep(run)
    shown = Shown(figure)
    assert columns(figure) == ["gzip", "bzip2"]
    assert rows(figure) == ["1", "5", "9"]
    # Beside the mark in the middle.
    assert [shown.at(-0.3, row) for row in (0, 1, 2)] == [BLUE, RED, CYAN]
    assert [shown.at(0.7, row) for row in (0, 1, 2)] == [GREY, TO_DO, TO_DO]
    assert shown.at(0, 1) == shown.at(0, 2) == "#1f2124"  # the marks
    assert legend(figure) == ["done 1", "in progress 1", "failed 1", "skipped 1", "to do 2"]
    assert {"tool", "level"} <= set(texts(figure))


def test_a_cell_of_several_is_divided() -> None:
    run = swept_run(
        {"tool": ["gzip", "bzip2"]},
        {("gzip",): [1, 2, 3, 4], ("bzip2",): [1]},
        states={("bzip2",): "failed"},
    )
    figure = draw_sweep(run, columns="tool")
    shown = Shown(figure)
    assert {"4", "1/4"} <= set(texts(figure))
    assert [shown.at(x, 0) for x in (0.6, 0.85, 1.2, 1.4)] == [BLUE, RED, RED, RED]
    assert "repetition" not in texts(figure)


def test_factors_that_are_chosen() -> None:
    run = swept_run({**TOOLS, "size": [7]}, {})
    figure = draw_sweep(run, rows="tool", columns="size")
    assert (rows(figure), columns(figure)) == (["gzip", "bzip2"], ["7"])
    assert "0/3" in texts(figure)
    with pytest.raises(ValueError, match=r"no factor 'sise': there are level, .*size, tool"):
        draw_sweep(run, rows="sise")


def test_a_factor_that_some_combinations_lack() -> None:
    combinations = sweep({"tool": {"cat": {}, "gzip": {"level": [1, 9]}}})
    figure = draw_sweep(Run(Path(), combinations=combinations))
    assert rows(figure) == ["1", "9", "(none)"]
    assert legend(figure) == ["to do 3"]


def test_the_folder_of_a_sweeper_is_enough(tmp_path: Path) -> None:
    sweeper = ParamSweeper(str(tmp_path / "sweep"), sweep(TOOLS), lease=0.4)
    for outcome in ("done", "failed", "open"):
        combination = sweeper.get_next()
        assert combination is not None
        if outcome == "done":
            sweeper.done(combination, result={"seconds": 3.5})
        elif outcome == "failed":
            sweeper.failed(combination, "no disk")
    sweeper.close()
    del sweeper
    for thread in threading.enumerate():
        if thread.name in ("execo-journal", "execo-sweeper"):
            thread.join(60)
    run = load(tmp_path / "sweep")
    assert legend(draw_sweep(run))[:2] == ["done 1", "in progress 1"]
    assert [one.values for one in grouped(run, "seconds", "tool").groups] == [(3.5,)]


def test_a_sweep_of_nothing() -> None:
    assert texts(draw_sweep(run_of())) == ["no combinations"]
    Shown(draw_sweep(Run(Path(), combinations=[HashableDict()])))


def test_many_levels() -> None:
    run = Run(Path(), combinations=sweep({"a": range(150), "b": range(120)}))
    figure = draw_sweep(run, title="Many")
    shown = Shown(figure)
    assert shown.count(TO_DO) > 100_000
    boxes = [one.get_window_extent() for one in figure.axes[0].get_xticklabels()]
    assert all(one.x1 <= other.x0 + 1 for one, other in itertools.pairwise(boxes))
    assert any(re.fullmatch(r"a \(one in \d named\)", text) for text in texts(figure))


# -- plots -----------------------------------------------------------------------------------------

MEASURED = swept_run(
    {"tool": ["gzip", "bzip2"], "level": [9, 1]},
    {
        ("gzip", 1): [{"seconds": 1.0}, {"seconds": 2.0}, {"seconds": 3.0}],
        ("gzip", 9): [{"seconds": 11.0}, {"seconds": 12.0}, {"seconds": 13.0}],
        ("bzip2", 1): [{"seconds": 5.0}, {"seconds": 5.5}],
        ("bzip2", 9): [{"seconds": 9.0}],
    },
)


def test_results_by_two_factors() -> None:
    found = grouped(MEASURED, "seconds", "level", "tool")
    one, other = found.groups[:2]
    assert (one.x, one.series, one.values) == (1, "gzip", (1, 2, 3))
    # 4.3027 * 1 / sqrt(3)
    assert one.estimate.low == pytest.approx(2 - 2.4841, abs=1e-4)
    assert (other.x, other.estimate.value) == (9, 12)
    assert [group.estimate.count for group in found.groups] == [3, 3, 2, 1]

    figure = draw_results(MEASURED, "seconds", "level", "tool")
    gzip, bzip2 = curves(figure)
    assert (list(gzip.get_xdata()), list(gzip.get_ydata())) == ([1, 9], [2, 12])
    assert (list(bzip2.get_xdata()), list(bzip2.get_ydata())) == ([1, 9], [5.25, 9])
    assert legend(figure) == ["tool gzip", "tool bzip2"]
    assert columns(figure) == ["1", "9"]
    said = " ".join(texts(figure)).replace("\n", " ")
    assert (
        "mean of 1 to 3 results and its 95 % confidence interval (Student's t);"
        " 1 of 4 points have no interval: too few results" in said
    )
    # All of it is within the axes, the interval that goes far down, too.
    low, high = figure.axes[0].get_ylim()
    assert low < 2 - 2.4841
    assert high > 13
    assert Shown(figure).count(BLUE) > 500


def test_what_is_mixed_is_said_and_can_be_fixed() -> None:
    mixed = draw_results(MEASURED, "seconds", "tool")
    assert "; mixed: level" in " ".join(texts(mixed))
    fixed = draw_results(MEASURED, "seconds", "tool", where={"level": 1})
    assert "mixed" not in " ".join(texts(fixed))
    assert [
        one.values for one in grouped(MEASURED, "seconds", "tool", where={"level": 1}).groups
    ] == [
        (1, 2, 3),
        (5, 5.5),
    ]


def test_medians() -> None:
    run = swept_run({"n": [1, 2]}, {(1,): [1, 2, 3, 4, 5, 100], (2,): [4, 5]})
    found = grouped(run, "result", "n", statistic="median", confidence=0.9)
    assert found.groups[0].estimate.value == 3.5
    assert (found.groups[0].estimate.low, found.groups[0].estimate.high) == (1, 100)
    figure = draw_results(run, "result", "n", statistic="median", confidence=0.9)
    assert "median of 2 to 6 results and its 90 %" in " ".join(texts(figure))
    assert "(order statistics)" in " ".join(texts(figure))


def test_what_counts_as_a_result() -> None:
    one, other = sweep({"n": [1, 2]})
    run = Run(
        Path(),
        combinations=[one, other],
        results=[
            ResultRow(one, "failed", {"x": 1000.0}, reason="exit code"),
            ResultRow(one, "done", {"x": 7.0}),
            ResultRow(one, "done", {"x": 8.0}),  # late, once more: the last one counts
            ResultRow(other, "done", {"x": float("nan"), "y": True, "z": "3"}),
        ],
    )
    found = grouped(run, "x", "n")
    assert [group.values for group in found.groups] == [(8.0,)]
    assert found.left_out == 1
    assert measured(run) == ["x"]
    assert "left out, without this number: 1" in " ".join(texts(draw_results(run, "x", "n")))


def test_the_duration_is_there_without_being_measured() -> None:
    found = grouped(MEASURED, "duration", "tool")
    assert {value for group in found.groups for value in group.values} == {2.0}
    assert measured(MEASURED) == ["seconds", "duration"]


def test_axes_that_reach_far_are_logarithmic() -> None:
    sizes = {"size": [1, 10, 1000]}
    far = swept_run(sizes, {(1,): [0.1], (10,): [2], (1000,): [500]})
    axes = draw_results(far, "result", "size").axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    near = swept_run({"size": [1, 10, 20]}, {(1,): [1], (10,): [2], (20,): [-500]})
    axes = draw_results(near, "result", "size").axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear")


def test_levels_that_are_no_numbers_stand_beside_one_another() -> None:
    run = swept_run({"mode": ["fast", "$best$", None]}, {("fast",): [1, 2], (None,): [3, 5]})
    figure = draw_results(run, "result", "mode", title="Modes")
    assert columns(figure) == ["fast", "None"]
    Shown(figure)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("second", "level"), "no result 'second' that is a number; those there are: seconds, dur"),
        (("seconds", "levle"), "no factor 'levle': there are tool, level, repetition, seed"),
        (("seconds", "level", "tol"), "no factor 'tol'"),
        (("seconds", "level", None, {"where": {"size": 1}}), "no result 'seconds'"),
        (("seconds", "level", None, {"statistic": "mode"}), "'mean' or 'median'"),
        (("seconds", "level", None, {"confidence": 95}), "between 0 and 1"),
    ],
)
def test_a_plot_that_cannot_be(arguments: tuple[Any, ...], message: str) -> None:
    options = arguments[3] if len(arguments) > 3 else {}
    with pytest.raises(ValueError, match=re.escape(message)):
        draw_results(MEASURED, *arguments[:3], **options)


def test_many_curves_are_told_apart() -> None:
    factors: dict[str, list[Any]] = {"n": [1, 2, 3], "kind": [f"kind {k}" for k in range(12)]}
    run = swept_run(factors, {(n, k): [n] for n in factors["n"] for k in factors["kind"]})
    figure = draw_results(run, "result", "n", "kind")
    lines = curves(figure)
    assert (
        len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == 12
    )
    assert len(legend(figure)) == 12


def test_more_curves_than_can_be_named() -> None:
    factors: dict[str, list[Any]] = {"n": [1, 2], "kind": [f"kind {k}" for k in range(40)]}
    run = swept_run(factors, {(n, k): [n] for n in factors["n"] for k in factors["kind"]})
    figure = draw_results(run, "result", "n", "kind")
    Shown(figure)  # there is room for it
    assert legend(figure)[-2:] == ["kind kind 13", "and 26 more"]


@pytest.mark.parametrize("numbers", [[10**50, 1, -(10**60)], [10**400, 2, 3], [0, -1, -2]])
def test_numbers_beyond_all_measure(numbers: list[int]) -> None:
    combinations = sweep({"n": numbers})
    values = [1e99, -1e308, 10**80]
    results = [
        ResultRow(one, "done", {"x": value})
        for one, value in zip(combinations, values, strict=True)
    ]
    run = Run(Path(), combinations=combinations, results=results)
    assert grouped(run, "x", "n").left_out == 1
    Shown(draw_results(run, "x", "n"))
    Shown(draw_timeline(run_of(process(0, "a", 0, 1e300), process(1, "b", -1e200, 1e-300))))


# -- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_shown_as_they_are(text: str) -> None:
    level = {"level": text, "number": 1}
    combinations = [HashableDict(level), HashableDict(level, number=2)]
    run = Run(
        Path(),
        processes=[process(0, text, 0, 1), process(1, text + "2", 0, 1, outcome=text)],
        combinations=[*combinations, HashableDict(level="else", number=2)],
        results=[ResultRow(one, "done", {text: 1.0}) for one in combinations],
    )
    for figure in (
        draw_timeline(run, title=text),
        draw_sweep(run, title=text),
        draw_results(run, text, "number", "level", title=text),
    ):
        shown = inline_svg(figure, "one")
        import xml.etree.ElementTree as tree

        root = tree.fromstring(shown)
        names = {one.tag.rpartition("}")[2] for one in root.iter()}
        assert names <= set("svg defs style g path use text tspan clipPath rect image".split())
        assert not any(name.startswith("on") for one in root.iter() for name in one.attrib)
        written = "".join(root.itertext())
        assert plain_text(text, 10)[:4] in written


def test_a_text_for_one_line() -> None:
    assert plain_text("a\nb\tc") == "a b c"
    assert plain_text("a\nb\tc", lines=True) == "a\nb c"
    assert plain_text("x" * 100, 11) == "xxxxx…xxxxx"
    assert plain_text("\x1b[31m\u202e\ud800é漢") == "\ufffd[31m\ufffd\ufffdé漢"
    assert plain_text(None) == "None"


def test_a_level() -> None:
    found = [level_text(level) for level in (0.1 + 0.2, 1e-9, 3, True, None, "x", (1, "a"))]
    assert found == ["0.3", "1e-09", "3", "True", "None", "x", '[1, "a"]']
    assert level_text(HashableDict(b=1)) == '{"b": 1}'


def test_numbers_in_names_are_sorted_as_numbers() -> None:
    names = ["n10", "n2", "", "n1-b", "n1-a", "9", "10", "n²"]
    assert sorted(names, key=natural) == ["", "9", "10", "n1-a", "n1-b", "n2", "n10", "n²"]


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_the_same_picture_gives_the_same_file(form: str, tmp_path: Path) -> None:
    one, other = (
        save_picture(draw_timeline(busy_run(50)), tmp_path / f"{name}.{form}") for name in "ab"
    )
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes().startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[form])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{form}", f"b.{form}"]


def test_dots_per_inch(tmp_path: Path) -> None:
    figure = draw_sweep(MEASURED, width=4)
    assert imread(save_picture(figure, tmp_path / "a.png", dpi=100)).shape[1] == 400
    assert imread(save_picture(figure, tmp_path / "a.png")).shape[1] == 1200


def test_letters_of_a_pdf_are_of_a_kind_that_journals_take(tmp_path: Path) -> None:
    path = save_picture(draw_results(MEASURED, "seconds", "tool"), tmp_path / "a.pdf")
    assert b"/CIDFontType2" in path.read_bytes()
    assert b"/Type3" not in path.read_bytes()


@pytest.mark.parametrize("form", ["pdf", "svg"])
def test_very_many_bars_are_one_image(form: str, tmp_path: Path) -> None:
    few = save_picture(draw_timeline(busy_run(1000)), tmp_path / f"few.{form}", dpi=100)
    many = save_picture(draw_timeline(busy_run(20_000)), tmp_path / f"many.{form}", dpi=100)
    image = {"pdf": b"/Subtype /Image", "svg": b"<image "}[form]
    assert image not in few.read_bytes()
    assert image in many.read_bytes()
    assert many.stat().st_size < 1_000_000


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    figure = draw_timeline(busy_run(3))
    with pytest.raises(ValueError, match="docx"):
        save_picture(figure, tmp_path / "a.docx")
    with pytest.raises(FileNotFoundError):
        save_picture(figure, tmp_path / "missing" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_letters_that_the_font_lacks_are_no_error(tmp_path: Path) -> None:
    run = run_of(process(0, "主机", 0, 1))
    save_picture(draw_timeline(run), tmp_path / "a.png")
    assert "主机" in inline_svg(draw_timeline(run), "a")


def test_pictures_on_many_threads(tmp_path: Path) -> None:
    wrong: list[BaseException] = []

    def draw(number: int) -> None:
        try:
            save_picture(draw_timeline(busy_run(200)), tmp_path / f"{number}.svg")
        except BaseException as exc:  # noqa: BLE001 - told below
            wrong.append(exc)

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_the_settings_of_the_user_stay_theirs(tmp_path: Path) -> None:
    from matplotlib import rc_context, rcParams

    with rc_context({"font.family": "serif", "pdf.fonttype": 3}):
        before = dict(rcParams)
        figure = draw_results(MEASURED, "seconds", "tool")
        save_picture(figure, tmp_path / "a.pdf")
        assert dict(rcParams) == before
    assert figure.axes[0].xaxis.label.get_fontfamily() == ["serif"]


# -- what is needed --------------------------------------------------------------------------------


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = re.escape("pip install 'execo[plot]'")
    with pytest.raises(ImportError, match=said):
        draw_timeline(busy_run(2))
    with pytest.raises(ImportError, match=said):
        draw_sweep(MEASURED)
    with pytest.raises(ImportError, match=said):
        draw_results(MEASURED, "seconds", "tool")


def test_nothing_is_imported_before_it_is_needed() -> None:
    script = (
        "import sys, execo.engine;"
        "print([name for name in ('matplotlib', 'numpy', 'jinja2') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_no_window_is_ever_there(tmp_path: Path) -> None:
    script = (
        "import sys; from execo.engine import *; from pathlib import Path;"
        "run = Run(Path('.'), processes=[ProcessRow(0, 'true', start=1.0, end=2.0)]);"
        f"save_picture(draw_timeline(run), {str(tmp_path / 'a.png')!r});"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
