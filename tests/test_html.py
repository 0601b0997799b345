"""The report of a run as a file: what is in it, what is not, and what it does with bad input."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from execo import Process
from execo.engine import (
    ActionRow,
    HashableDict,
    Record,
    ResultRow,
    Run,
    load,
    sweep,
    write_report,
)
from sample_runs import BEGIN, HOSTILE, busy_run, process, run_of, swept_run

MANIFEST: dict[str, Any] = {
    "name": "compress",
    "version": "3",
    "argv": ["compress.py", "--hosts", "node[1-2]"],
    "started": BEGIN,
    "ended": BEGIN + 100,
    "error": None,
    "git": {"commit": "3101a86", "changed": True},
    "versions": {"execo": "3.0.0"},
    "seeds": {"sizes": 42},
    "hosts": {
        "node-1.example.org": {
            "cpu": "Xeon",
            "cpus": 64,
            "memory": 192 << 30,
            "numa": {"0": "0-63"},
        },
        "node-2.example.org": {"error": "cannot connect"},
    },
}


SVG = "svg defs style g path use text tspan clippath rect image".split()


class Page(html.parser.HTMLParser):
    """A page as a browser would take it apart; complains of tags that do not match."""

    VOID = ("meta", "input", "br", "img", "link", "hr")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        # The end of these may be left out, but is not.
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attributes, text = self.scripts.pop()
            self.scripts.append((attributes, text + data))
        elif self.open and self.open[-1] != "style":
            self.text += data

    @property
    def own_tags(self) -> list[str]:
        """Those that are no part of a picture."""
        return [tag for tag, _ in self.tags if tag not in SVG]

    def data(self, number: int = -1) -> dict[str, Any]:
        """What a table has for the script: by its place on the page."""
        found = [text for attributes, text in self.scripts if attributes.get("type")]
        content: dict[str, Any] = json.loads(found[number])
        return content


def written(run: Run, folder: Path, **options: Any) -> Page:
    return Page(write_report(run, folder / "report.html", **options))


def swept(**facts: Any) -> Run:
    """As an experiment that is under way."""
    factors = {"tool": ["gzip", "bzip2"], "level": [1, 9]}
    results = {
        ("gzip", 1): [{"seconds": 1.0}, {"seconds": 1.5}],
        ("gzip", 9): [{"seconds": 2.0}, {"seconds": 2.5}],
        ("bzip2", 1): [{"seconds": 3.0}],
    }
    run = swept_run(factors, results, states={("bzip2", 9): "failed"})
    return replace(run, **{"manifest": MANIFEST, "processes": busy_run(100).processes, **facts})


# -- what is in it ---------------------------------------------------------------------------------


def test_a_whole_report(tmp_path: Path) -> None:
    actions = [ActionRow(0, "<Remote>", ok=True), ActionRow(1, "<Put>", ok=False)]
    page = written(swept(actions=actions, faults=["events.jsonl, line 3: torn"]), tmp_path)
    text = re.sub(r"\s+", " ", page.text)
    for words in (
        "compress",
        "has ended",
        "compress.py --hosts 'node[1-2]'",
        "2026-11-18 11:06:40 UTC",
        "1m40s",
        "3101a86, with changes",
        "execo 3.0.0",
        '{"sizes": 42}',
        "5 done",
        "2 failed",
        "1 to do",
        "events.jsonl, line 3: torn",
        "seconds by level",
    ):
        assert words in text
    assert [tag for tag, _ in page.tags].count("svg") == 2 + 2  # sweep, timeline, two plots
    results, processes, hosts = (page.data(number) for number in (-3, -2, -1))
    assert [len(one["rows"]) for one in (results, processes, hosts)] == [8, 100, 10]
    assert results["kinds"][:6] == ["text", "number", "number", "number", "state", "number"]
    assert results["rows"][0][:2] == ["gzip", 1]
    assert results["rows"][0][4:8] == ["done", 1.0, 0.0, 2.0]
    first = next(row for row in hosts["rows"] if row[0] == "node-1.example.org")
    assert first[4:8] == ["Xeon", 64, 192.0, 1]
    assert next(row for row in hosts["rows"] if row[0] == "node-2.example.org")[4] == (
        "cannot connect"
    )


def test_the_beginning_of_a_table_is_part_of_the_page(tmp_path: Path) -> None:
    page = written(swept(), tmp_path)
    assert len(re.findall(r"command \d", page.text)) == 50
    assert "The first 50 of 100 rows: the others" in page.text


def test_the_numbers_of_a_plot_are_beside_it(tmp_path: Path) -> None:
    plots = [{"value": "seconds", "x": "level", "by": "tool", "statistic": "median"}]
    page = written(swept(), tmp_path, plots=plots)
    assert page.data(0)["rows"] == [
        ["gzip", 1, 2, 1.25, None, None, 1.0, 1.5],
        ["gzip", 9, 2, 2.25, None, None, 2.0, 2.5],
        ["bzip2", 1, 1, 3.0, None, None, 3.0, 3.0],
    ]
    assert "median" in page.text


def test_plots_that_nobody_chose_do_not_mix_conditions(tmp_path: Path) -> None:
    factors: dict[str, list[Any]] = {
        "tool": ["a", "b"],
        "level": [1, 2, 3],
        "disk": ["ssd", "hdd", "nvme"],
    }
    results = {
        (tool, level, disk): [{"seconds": level, "name": tool}]
        for tool in factors["tool"]
        for level in factors["level"]
        for disk in factors["disk"]
    }
    page = written(swept_run(factors, results), tmp_path)
    titles = re.findall(r"<h2>(.* by .*)</h2>", page.source)
    assert titles == [
        f"{value} by level, disk {disk}"
        for value in ("seconds", "duration")
        for disk in ("ssd", "hdd", "nvme")
    ]
    assert "mixed" not in page.text


def test_a_factor_of_many_levels_makes_no_curves(tmp_path: Path) -> None:
    factors: dict[str, list[Any]] = {"user": [f"u{n}" for n in range(30)], "size": [*range(40)]}
    results = {(user, size): [size] for user in factors["user"] for size in factors["size"]}
    page = written(swept_run(factors, results), tmp_path)
    assert "<h2>result by size</h2>" in page.source
    assert "mean of 30 results" in page.text
    assert "mixed: user" in page.text


def test_a_report_without_plots(tmp_path: Path) -> None:
    page = written(swept(), tmp_path, plots=[])
    assert [tag for tag, _ in page.tags].count("svg") == 2


@pytest.mark.parametrize(
    "plots", [[{"value": "second", "x": "level"}], [{"value": "seconds", "x": 7}]]
)
def test_a_plot_that_cannot_be(plots: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no (result|factor)"):
        written(swept(), tmp_path, plots=plots)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({}, "without a manifest"),
        ({"started": BEGIN}, "has not ended: it runs, or was killed"),
        ({"ended": BEGIN, "error": "ValueError: 3"}, "ended with ValueError: 3"),
        ({"ended": BEGIN, "error": None}, "has ended"),
        (
            {"started": "soon", "ended": 1e300, "git": 3, "hosts": [1], "versions": None},
            "has ended",
        ),
        ({"hosts": {"a": None, "b": {"memory": "much", "numa": 3}}, "git": {}}, "no commit"),
    ],
)
def test_manifests_of_all_kinds(manifest: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in written(run_of(process(0, "a", 0, 1), manifest=manifest), tmp_path).text


def test_a_run_of_nothing(tmp_path: Path) -> None:
    page = written(run_of(), tmp_path)
    assert "nowhere" in page.text
    assert [tag for tag, _ in page.tags].count("table") == 0
    assert [tag for tag, _ in page.tags].count("svg") == 0


def test_a_run_that_was_recorded(tmp_path: Path) -> None:
    with Record(tmp_path / "run") as record:
        for combination in sweep({"number": [1, 2]}, repeat=2):
            with record.combination(combination):
                found = Process(f"echo {combination['number']}").run()
                Process("sh -c 'exit 3'", nolog_exit_code=True).run()
            record.result(combination, {"seen": int(found.stdout)})
    run = load(tmp_path / "run")
    path = write_report(run)
    assert path == tmp_path / "run" / "report.html"
    page = Page(path)
    rows = page.data(-2)["rows"]
    assert [row[3] for row in rows] == ["ok", "exit code"] * 4
    assert "number=1, repetition=0, seed=" in rows[0][9]
    assert "exit 3" in rows[1][2]
    # Once more: the old one is replaced, and is no part of the run.
    assert write_report(load(tmp_path / "run"), title="Once more") == path
    assert "<title>Once more</title>" in path.read_text()


# -- numbers and texts -----------------------------------------------------------------------------


def test_numbers_are_those_that_javascript_has(tmp_path: Path) -> None:
    values = [1 << 53, -(10**400), float("nan"), float("inf"), 1e-9, 0.1 + 0.2, True, None, 12]
    combinations = sweep({"n": range(len(values))})
    results = [
        ResultRow(one, "done", {"x": value})
        for one, value in zip(combinations, values, strict=True)
    ]
    page = written(Run(Path(), combinations=combinations, results=results), tmp_path)
    found = [row[2] for row in page.data()["rows"]]
    assert found[0] == "9007199254740992"
    assert found[1].startswith("-1000")
    assert found[2:] == ["nan", "inf", 1e-09, 0.3, "True", None, 12]


def test_results_that_are_no_dicts(tmp_path: Path) -> None:
    one, two, three = sweep({"n": [1, 2, 3]})
    results = [
        ResultRow(one, "done", 5),
        ResultRow(two, "done", [1, {"a": 2}]),
        ResultRow(three, "done", {"x": {"deep": (1, 2)}}),
    ]
    page = written(Run(Path(), combinations=[one, two, three], results=results), tmp_path)
    assert [row[2:4] for row in page.data()["rows"]] == [
        [None, 5],
        [None, "[1, {'a': 2}]"],
        ["{'deep': (1, 2)}", None],
    ]


def test_a_very_long_command_is_shortened(tmp_path: Path) -> None:
    long = "begin " + "x" * (10 << 20) + " end"
    run = run_of(process(0, "a", 0, 1, cmd=long, outcome="exit code", message=long, stderr=long))
    page = written(replace(run, manifest={"argv": [long], "name": long}), tmp_path)
    assert len(page.source) < 500_000
    command = page.data(-2)["rows"][0][2]
    assert command.startswith("begin xxx")
    assert command.endswith("xxx end")
    assert "…" in command


def test_the_last_words_of_what_failed_are_told(tmp_path: Path) -> None:
    run = run_of(
        process(
            0, "a", 0, 1, outcome="exit code", message="exited 3", stderr="gzip: no such file\n"
        ),
        process(1, "a", 0, 1, stderr="only a warning"),
    )
    rows = written(run, tmp_path).data(-2)["rows"]
    assert [row[-1] for row in rows] == ["exited 3\ngzip: no such file", ""]


# -- what is harmless ------------------------------------------------------------------------------


def hostile_run(text: str) -> Run:
    """With that text at every place where a run has one."""
    combination = HashableDict({text: text, "n": 1})
    other = HashableDict({text: text + "2", "n": 2})
    facts = {"cpu": text, "cpus": text, "memory": text, "kernel": text, "clock_offset": text}
    return Run(
        Path("nowhere"),
        manifest={
            "name": text,
            "version": text,
            "argv": [text],
            "user": text,
            "error": text,
            "git": {"commit": text},
            "versions": {text: text},
            "seeds": {text: text},
            "hosts": {text: facts},
            "machine": {"name": text},
            text: {text: text},
        },
        processes=[
            process(
                *(0, text, 0, 1),
                cmd=text,
                outcome=text,
                message=text,
                stderr=text,
                combination=combination,
                action=0,
            ),
            process(1, text * 2, 0, 1, cmd=text),
        ],
        actions=[ActionRow(0, text, ok=True)],
        combinations=[combination, other],
        states={combination: "done", other: text},
        results=[
            ResultRow(combination, "done", {text: 1.5, "what": text}, reason=text, hosts=(text,)),
            ResultRow(other, "done", {text: 2.5}),
            ResultRow(other, text, text),
        ],
        faults=[text],
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_stay_texts(text: str, tmp_path: Path) -> None:
    page = written(hostile_run(text), tmp_path, title=text)
    plain = written(hostile_run("plain"), tmp_path, title="plain")
    assert page.own_tags == plain.own_tags
    # Those of pictures hang on the room that the texts take.
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
    names = {name for _, attributes in page.tags for name in attributes}
    assert names == {name for _, attributes in plain.tags for name in attributes}
    assert not any(name.startswith("on") for name in names)
    assert [text for attributes, text in page.scripts if not attributes] == [
        text for attributes, text in plain.scripts if not attributes
    ]
    for control in "\x00\x07\x1b\x7f\u202e\r":
        assert control not in page.source


def test_the_page_forbids_what_it_does_not_need(tmp_path: Path) -> None:
    page = written(swept(), tmp_path)
    policy = next(
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    (script,) = [text for attributes, text in page.scripts if not attributes]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline';"
        f" script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = written(swept(processes=busy_run(5000).processes), tmp_path)
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:image/png;base64,")) or not value, (tag, value)
        assert tag not in ("link", "iframe", "object", "embed", "form", "base")
    assert not re.search(r"@import|url\((?!#)", page.source)
    addresses = set(re.findall(r"\w+://[^\s\"'<]+", page.source))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_there_once(tmp_path: Path) -> None:
    page = written(swept(), tmp_path)
    found = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(set(found)) == len(found)
    targets = {
        (attributes.get("href") or attributes.get("xlink:href") or "")[1:]
        for tag, attributes in page.tags
        if tag in ("a", "use")
    }
    assert targets <= set(found)


# -- the file --------------------------------------------------------------------------------------


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_report(swept(), tmp_path / "missing" / "report.html")
    with pytest.raises(FileNotFoundError):  # the folder of the run is not there, either
        write_report(swept())


def test_the_file_of_before_stays_if_there_is_no_new_one(tmp_path: Path) -> None:
    path = write_report(swept(), tmp_path / "report.html")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="no result"):
        write_report(swept(), path, plots=[{"value": "nothing", "x": "level"}])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_reports_on_many_threads(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=write_report, args=(swept(), tmp_path / f"{number}.html"))
        for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert len(list(tmp_path.iterdir())) == 3


# -- what is needed --------------------------------------------------------------------------------


def test_a_missing_jinja_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'execo[report]'")):
        written(swept(), tmp_path)


def test_without_matplotlib_there_are_no_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = written(swept(), tmp_path)
    assert "pip install 'execo[plot]'" in page.text
    assert [tag for tag, _ in page.tags].count("svg") == 0
    assert [tag for tag, _ in page.tags].count("table") == 3
