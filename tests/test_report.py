from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execo.errors import Reason
from execo.report import Report, Stats

KEYS_OF_EXECO_2 = [
    *["name", "start_date", "end_date", "num_processes", "num_started", "num_ended"],
    *["num_errors", "num_timeouts", "num_forced_kills", "num_non_zero_exit_codes"],
    *["num_expect_fail", "num_write_error", "num_ok", "num_finished_ok", "sub_stats"],
]

GOOD = Stats(
    name="uptime",
    start_date=1000,
    end_date=1090,
    num_processes=3,
    num_started=3,
    num_ended=3,
    num_ok=3,
    num_finished_ok=3,
)
BAD = Stats(
    name="make",
    start_date=900,
    end_date=1050.5,
    num_processes=10,
    num_started=8,
    num_ended=10,
    num_errors=1,
    num_timeouts=2,
    num_forced_kills=1,
    num_non_zero_exit_codes=4,
    num_ok=3,
    num_finished_ok=3,
    num_cancelled=2,
    num_truncated=1,
    num_undrained=5,
    num_waited=6,
    num_retries=7,
    reasons={Reason.TIMEOUT: 2, Reason.EXIT_CODE: 2, Reason.SPAWN: 1, Reason.CANCELLED: 2},
)
RUNNING = Stats(name="server", start_date=950, num_processes=2, num_started=2, num_ended=1)


class Uptime:
    """Something that has statistics, as a process or an action does."""

    def __init__(self, stats: Mapping[str, Any] = GOOD) -> None:
        self.now = stats

    def stats(self) -> Mapping[str, Any]:
        return self.now


@pytest.fixture(autouse=True)
def use_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """All tests see UTC as the local time zone, unless they set another one with this."""

    def use(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    use("UTC")
    yield use
    monkeypatch.undo()
    time.tzset()


# Stats


def test_stats_have_the_keys_of_execo_2() -> None:
    assert set(KEYS_OF_EXECO_2) <= set(GOOD)
    assert GOOD["num_ok"] == GOOD.num_ok == 3
    assert [*Stats().values()] == [None] * 3 + [0] * 16 + [{}, ()]
    assert len(GOOD) == len(list(GOOD)) == len(dict(GOOD))
    assert GOOD.get("num_goats", "none") == "none"
    with pytest.raises(KeyError, match="'keys'"):
        GOOD["keys"]


def test_stats_are_frozen() -> None:
    reasons = {"timeout": 1}
    parts = [GOOD]
    stats = Stats(reasons=reasons, sub_stats=parts)  # type: ignore[arg-type]
    reasons["timeout"] = 100
    parts.append(BAD)
    assert stats.reasons == {"timeout": 1}
    assert stats.sub_stats == (GOOD,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.num_ok = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        stats["num_ok"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        stats.reasons["timeout"] = 1  # type: ignore[index]
    assert dataclasses.replace(stats, num_ok=1).num_ok == 1


def test_stats_are_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        Stats("uptime")  # type: ignore[call-arg]


def test_stats_compare_by_value() -> None:
    assert dataclasses.replace(BAD) == BAD
    assert dict(BAD) == BAD
    assert BAD != GOOD
    assert dataclasses.replace(BAD, reasons={}) != BAD


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_stats_and_reports_travel(protocol: int) -> None:
    report = Report([GOOD, Stats.merge([BAD, RUNNING], name="both", keep_parts=True)], name="all")
    again = pickle.loads(pickle.dumps(report, protocol))
    assert again.stats() == report.stats()
    assert str(again) == str(report)
    assert again.stats().sub_stats[1].reasons == BAD.reasons


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_stats_and_reports_are_copied(copied: Callable[[Any], Any]) -> None:
    assert copied(BAD) == BAD
    report = Report([GOOD])
    other = copied(report)
    other.add([BAD])
    other.name = "other"
    assert report.stats() == Report([GOOD]).stats()
    assert other.stats() == Report([GOOD, BAD], name="other").stats()


def test_reasons_are_plain_words() -> None:
    assert BAD.reasons["timeout"] == BAD.reasons[Reason.TIMEOUT] == 2
    assert {type(word) for word in BAD.reasons} == {str}
    assert dataclasses.asdict(BAD)["reasons"] == BAD.reasons


# Merging


def test_merging_adds_up() -> None:
    both = Stats.merge([GOOD, BAD], name="both")
    assert both.name == "both"
    assert (both.start_date, both.end_date) == (900, 1090)
    assert both.num_processes == 13
    assert both.num_finished_ok == 6
    assert both.num_waited == 6
    assert both.num_retries == 7
    assert both.reasons == BAD.reasons
    assert both.sub_stats == ()
    assert Stats.merge([both, BAD]).reasons["timeout"] == 4


def test_merging_keeps_the_parts_when_asked() -> None:
    assert Stats.merge(iter([GOOD, BAD]), keep_parts=True).sub_stats == (GOOD, BAD)


def test_merging_nothing_gives_empty_stats() -> None:
    assert Stats.merge([]) == Stats()
    assert Stats.merge([Stats(), Stats()]) == Stats()


@pytest.mark.parametrize(
    "unfinished",
    [
        pytest.param(RUNNING, id="running"),
        pytest.param(Stats(num_processes=1), id="not started"),
        pytest.param(
            Stats(start_date=1, end_date=2, num_processes=2, num_started=1, num_ended=1),
            id="one of two not started",
        ),
        pytest.param(Stats(start_date=1), id="started without any process yet"),
    ],
)
def test_there_is_no_end_date_while_anything_is_unfinished(unfinished: Stats) -> None:
    assert Stats.merge([GOOD, unfinished]).end_date is None
    assert Stats.merge([unfinished, GOOD]).end_date is None
    assert Stats.merge([GOOD, Stats.merge([unfinished, BAD])]).end_date is None


@pytest.mark.parametrize(
    "finished",
    [
        pytest.param(Stats(), id="nothing"),
        pytest.param(
            Stats(end_date=2, num_processes=1, num_ended=1, num_cancelled=1), id="given up"
        ),
        pytest.param(Stats(start_date=1, end_date=2), id="no hosts"),
    ],
)
def test_what_has_nothing_left_to_do_does_not_hold_the_end_date(finished: Stats) -> None:
    assert Stats.merge([GOOD, finished]).end_date == GOOD.end_date


some_stats = st.builds(
    Stats,
    start_date=st.none() | st.integers(0, 9),
    end_date=st.none() | st.integers(10, 19),
    num_processes=st.integers(0, 9),
    num_ended=st.integers(0, 9),
    num_waited=st.integers(0, 9),
    num_retries=st.integers(0, 9),
    reasons=st.dictionaries(st.sampled_from(list(Reason)), st.integers(1, 9)),
)


@given(st.lists(some_stats))
def test_the_order_of_merging_does_not_matter(parts: list[Stats]) -> None:
    merged = Stats.merge(parts)
    assert Stats.merge(reversed(parts)) == merged
    assert merged.num_waited == sum(part.num_waited for part in parts)
    assert merged.num_retries == sum(part.num_retries for part in parts)
    assert sum(merged.reasons.values()) == sum(sum(p.reasons.values()) for p in parts)
    assert all(merged.num_processes >= part.num_processes for part in parts)


# Report


def test_a_report_is_a_snapshot() -> None:
    process = Uptime(RUNNING)
    report = Report([process])
    process.now = GOOD
    assert report.stats().sub_stats == (RUNNING,)
    report.add([process])
    assert report.stats().sub_stats == (RUNNING, GOOD)
    assert report.stats().num_processes == 5


def test_a_report_names_its_totals() -> None:
    report = Report(name="night run")
    assert report.name == report.stats().name == "night run"
    report.name = "day run"
    assert report.stats()["name"] == "day run"
    assert Report().stats() == dataclasses.replace(Report.empty_stats(), name="Report")


def test_a_report_takes_stats_reports_dicts_and_single_objects() -> None:
    inner = Report([GOOD], name="inner")
    old = {**{key: GOOD[key] for key in KEYS_OF_EXECO_2}, "sub_stats": [dict(BAD)]}
    report = Report([BAD, inner, Uptime(old)])
    assert report.stats().sub_stats == (
        BAD,
        inner.stats(),
        dataclasses.replace(GOOD, sub_stats=(BAD,)),
    )
    assert Report(GOOD).stats() == Report(Uptime()).stats() == Report([GOOD]).stats()  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["uptime", 3, None, object()])
def test_a_report_says_what_it_cannot_report_on(wrong: object) -> None:
    report = Report()
    with pytest.raises(TypeError, match=r"has no stats\(\) method; give processes") as refusal:
        report.add([GOOD, wrong])
    assert repr(wrong) in str(refusal.value)
    assert report.stats().sub_stats == ()


def test_a_report_refuses_unknown_counts() -> None:
    with pytest.raises(TypeError, match="num_goats"):
        Report([{"num_goats": 3}])


def test_aggregate_stats_gives_totals() -> None:
    totals = Report.aggregate_stats([GOOD, dict(BAD)])
    assert totals == Stats.merge([GOOD, BAD])
    assert Report.aggregate_stats([]) == Report.empty_stats() == Stats()


def test_a_report_as_json() -> None:
    both = Stats.merge([GOOD, BAD], name="both", keep_parts=True)
    report = Report([both], name="all")
    read = json.loads(report.to_json())
    assert read == report.to_dict()
    assert read["sub_stats"][0]["sub_stats"][1]["name"] == "make"
    assert read["reasons"] == {"timeout": 2, "exit code": 2, "spawn": 1, "cancelled": 2}
    assert Stats.from_dict(read) == report.stats()
    assert "\n" not in report.to_json()
    assert '\n  "name": "all"' in report.to_json(indent=2)


def test_a_dict_of_a_report_is_ones_own() -> None:
    report = Report([BAD])
    found = report.to_dict()
    found["reasons"].clear()
    found["sub_stats"].clear()
    assert report.stats().reasons == BAD.reasons
    assert report.stats().sub_stats == (BAD,)


def test_reports_are_filled_and_read_from_many_threads() -> None:
    report = Report()

    def fill() -> None:
        for _ in range(100):
            report.add([GOOD, BAD])
            stats = report.stats()
            assert stats.num_processes == sum(part.num_processes for part in stats.sub_stats)
            assert len(stats.sub_stats) % 2 == 0

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert report.stats().num_processes == 4 * 100 * 13


# The table


def test_a_good_run_is_short() -> None:
    assert str(Report([GOOD], name="all")) == "\n".join(
        [
            "name                                     start (+00:00)      end",
            "     length total started ended errors timeout forced nonzero expect write    ok",
            "-" * 80,
            "all                                      1970-01-01 00:16:40 1970-01-01 00:18:10",
            "      1m30s     3       3     3      0       0      0       0      0     0     3",
            "  uptime                                 1970-01-01 00:16:40 1970-01-01 00:18:10",
            "      1m30s     3       3     3      0       0      0       0      0     0     3",
            "-" * 80,
        ]
    )


def test_what_has_no_column_stands_below() -> None:
    lines = str(Report([GOOD, BAD])).splitlines()
    assert lines[-2:] == [
        "also: cancelled 2, truncated 1, undrained 5, waited 6, retries 7; reasons:",
        "cancelled 2, exit code 2, timeout 2, spawn 1",
    ]
    lines = str(Report([Stats(num_waited=1)])).splitlines()
    assert lines[-1] == "also: waited 1"
    lines = str(Report([Stats(reasons={"auth": 1})])).splitlines()
    assert lines[-1] == "reasons: auth 1"


def test_a_wide_table_has_one_line_per_row() -> None:
    lines = Report([GOOD, BAD], name="all").to_string(wide=True).splitlines()
    assert lines[0].split()[:5] == ["name", "start", "(+00:00)", "end", "length"]
    assert [line.split()[0] for line in lines[2:5]] == ["all", "uptime", "make"]
    assert {len(line) for line in lines[:6]} == {157}
    make = dict(zip(lines[0].split()[4:], lines[4].split()[5:], strict=True))
    assert make == {
        "length": "2m30s",
        "total": "10",
        "started": "8",
        "ended": "10",
        "errors": "1",
        "timeout": "2",
        "forced": "1",
        "nonzero": "4",
        "expect": "0",
        "write": "0",
        "ok": "3",
    }


def test_a_brief_table_has_the_totals_only() -> None:
    report = Report([GOOD, BAD], name="all")
    text = report.to_string(brief=True)
    assert "uptime" not in text
    assert str(report).startswith("\n".join(text.splitlines()[:5]))
    assert text.endswith("spawn 1")


def test_parts_are_a_tree() -> None:
    steps = Stats.merge([GOOD, BAD], name="steps", keep_parts=True)
    text = Report([steps, RUNNING], name="all").to_string(wide=True)
    names = [line[:36].rstrip() for line in text.splitlines()[2:-2]]
    assert names == ["all", "  steps", "    uptime", "    make", "  server"]


def test_what_is_not_over_has_no_end() -> None:
    _, _, totals, *_ = Report([GOOD, RUNNING]).to_string(wide=True).splitlines()
    assert totals.split()[:5] == ["Report", "1970-01-01", "00:15:50", "-", "-"]


def test_an_empty_report_is_a_table_too() -> None:
    lines = str(Report()).splitlines()
    assert lines[0].split() == ["name", "start", "end"]
    assert lines[3].split() == ["Report", "-", "-"]
    assert len(lines) == 6


def test_dates_are_local_in_one_zone(use_zone: Callable[[str], None]) -> None:
    use_zone("CET-1CEST,M3.5.0,M10.5.0/3")
    clocks_go_back = 1792890000  # 2026-10-25 01:00 UTC
    stats = dataclasses.replace(
        GOOD, start_date=clocks_go_back - 1800, end_date=clocks_go_back + 1800
    )
    lines = str(Report([stats])).splitlines()
    assert "start (+02:00)" in lines[0]
    assert lines[3].endswith("2026-10-25 02:30:00 2026-10-25 03:30:00")
    assert lines[4].split()[0] == "1h0m0s"


def test_only_an_end_is_known_of_what_was_given_up() -> None:
    given_up = Stats(end_date=1090, num_processes=1, num_ended=1, num_cancelled=1)
    lines = str(Report([given_up])).splitlines()
    assert "start (+00:00)" in lines[0]
    assert lines[3].split() == ["Report", "-", "1970-01-01", "00:18:10"]


@pytest.mark.parametrize(
    ("seconds", "length"),
    [(0.5, "0s"), (-3, "-3s"), (864000, "10d0h0m0s"), (8639999, "99d23h59m"), (1e11, "1157407d9h")],
)
def test_lengths_fit(seconds: float, length: str) -> None:
    stats = dataclasses.replace(GOOD, start_date=1e9, end_date=1e9 + seconds)
    assert str(Report([stats])).splitlines()[4].split()[0] == length


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (99999, "99999"),
        (100000, "100k"),
        (1234567, "1234k"),
        (12345678, "12M"),
        (10**9, "1000M"),
        (10**12, "1000G"),
    ],
)
def test_counts_fit(count: int, shown: str) -> None:
    stats = Stats(num_processes=count)
    assert str(Report([stats])).splitlines()[4].split()[1] == shown
    assert Report([stats]).to_dict()["num_processes"] == count


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x" * 36, "x" * 36),
        ("x" * 38, "x" * 38),
        ("x" * 39, "x" * 35 + "..."),
        ("cat\n\tfile", "cat file"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("bad \udc80 byte", "bad \\udc80 byte"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("\u4e2d" * 19, "\u4e2d" * 19),
        ("\u4e2d" * 20, "\u4e2d" * 17 + "..."),
        (None, "-"),
        ("", ""),
    ],
)
def test_names_fit_and_are_harmless(name: str | None, shown: str) -> None:
    line = str(Report([dataclasses.replace(GOOD, name=name)])).splitlines()[5]
    name_in_table, dates = line[: -2 * 19 - 1], line[-2 * 19 - 1 :]
    assert name_in_table.strip() == shown
    assert dates == "1970-01-01 00:16:40 1970-01-01 00:18:10"
    assert columns(line) == 80


def columns(line: str) -> int:
    """The columns of a terminal that a line takes."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


tables = st.recursive(
    some_stats,
    lambda parts: st.builds(
        Stats,
        name=st.none() | st.text(max_size=60),
        start_date=st.none() | st.floats(-1e10, 1e11),
        end_date=st.none() | st.floats(-1e10, 1e11),
        num_processes=st.integers(0, 10**12),
        num_finished_ok=st.integers(0, 10**12),
        num_undrained=st.integers(0, 10**12),
        reasons=st.dictionaries(st.text(max_size=100), st.integers(0, 10**12), max_size=4),
        sub_stats=st.lists(parts, max_size=3),
    ),
    max_leaves=8,
)


@given(st.lists(tables, max_size=3), st.text(max_size=60))
def test_any_table_is_aligned_and_in_its_width(parts: list[Stats], name: str) -> None:
    report = Report(parts, name=name)
    head, rule, *rows = report.to_string(wide=True).splitlines()
    rows = rows[: rows.index(rule)]
    assert {columns(line) for line in (head, rule, *rows)} == {157}
    assert all(line.isprintable() for line in rows)

    two_lines = str(report).splitlines()
    rule_at = len(two_lines) - two_lines[::-1].index("-" * 80)
    assert {len(line) for line in two_lines[1:rule_at][3::2]} <= {80}
    assert all(columns(line) <= 80 for line in two_lines[:rule_at])
    assert all(len(line) <= 80 for line in two_lines)
    assert json.loads(report.to_json()) == report.to_dict()


def test_a_very_deep_tree_keeps_room_for_names() -> None:
    stats = GOOD
    for depth in range(50):
        stats = Stats.merge([stats], name=f"level{49 - depth}", keep_parts=True)
    lines = str(Report([stats])).splitlines()
    assert any("level49 " in line for line in lines)
    assert max(map(len, lines)) == 80


def test_no_colour_and_one_line_reprs() -> None:
    report = Report([GOOD, BAD], name="all")
    assert "\x1b" not in str(report)
    assert repr(report) == "<Report 'all': 2 parts>"
    assert repr(BAD) == "<Stats 'make': 10 processes, 8 started, 10 ended, 3 ok>"
