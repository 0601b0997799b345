"""The report of a run in a real browser: what is shown, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.keys import Keys

from execo.engine import write_report
from sample_runs import HOSTILE, process, run_of
from test_html import hostile_run, swept

if TYPE_CHECKING:
    from browsing import Browser

pytest_plugins = ["browsing"]
pytestmark = pytest.mark.browser

BLUE, RED = (0x44, 0x77, 0xAA), (0xEE, 0x66, 0x77)
ROWS = "#processes tbody tr"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hosts = ["node-1", "node-2", "node-10"]
    outcomes = ["ok", "ok", "ok", "exit code", "timeout"]
    processes = [
        process(
            *(number, hosts[number % 3], number, number + 1 + number % 7 / 8),
            outcome=outcomes[number % 5],
            exit_code=3 if number % 5 == 3 else None,
        )
        for number in range(120)
    ]
    return write_report(
        swept(processes=processes), tmp_path_factory.mktemp("report") / "report.html"
    )


@pytest.fixture
def page(browser: Browser, report: Path) -> Browser:
    browser.prefer(prefers_color_scheme="light")
    browser.driver.set_window_size(1280, 900)
    browser.open(report)
    assert browser.complaints() == []
    return browser


def column(page: Browser, number: int, table: str = "processes") -> list[str]:
    return list(
        page.ask(
            "return [...document.querySelectorAll(arguments[0])].map((cell) => cell.textContent)",
            f"#{table} tbody td:nth-child({number})",
        )
    )


def share(pixels: Any, colour: Sequence[int]) -> float:
    """How much of a picture has about that colour."""
    return float((abs(pixels - list(colour)).max(axis=2) < 8).mean())


def heading(page: Browser, number: int) -> Any:
    return page.find(f"#processes th:nth-child({number})")


# -- what is shown ---------------------------------------------------------------------------------


def test_all_of_it_is_shown(page: Browser, tmp_path: Path) -> None:
    assert page.driver.title == "compress"
    assert page.texts("h2") == [
        "How far the sweep has come",
        "When processes ran",
        "seconds by level",
        "duration by level",
        "Combinations and results",
        "Processes",
        "Hosts",
        "Manifest",
    ]
    assert page.ask("return performance.getEntriesByType('resource').length") == 0
    pixels = page.picture(tmp_path / "whole.png", whole=True)
    # What went well, and what failed, in the pictures and beside the rows.
    assert share(pixels, BLUE) > 0.02
    assert share(pixels, RED) > 0.003
    for picture in page.driver.find_elements("css selector", "svg"):
        assert picture.size["width"] > 400
        assert picture.size["height"] > 100
        assert picture.accessible_name


def test_a_picture_has_its_bars_where_they_belong(page: Browser, tmp_path: Path) -> None:
    page.ask("document.querySelector('#timeline-picture').scrollIntoView()")
    pixels = page.picture(tmp_path / "timeline.png")
    box = page.ask(
        "const box = document.querySelector('#timeline-picture svg').getBoundingClientRect();"
        "return [box.left, box.top, box.right, box.bottom]"
    )
    left, top, right, bottom = map(int, box)
    assert share(pixels[top:bottom, left:right], BLUE) > 0.05
    names = page.texts("#timeline-picture svg text")
    assert [name for name in names if name.startswith("node")] == ["node-1", "node-2", "node-10"]


def test_dark_is_dark(page: Browser, tmp_path: Path) -> None:
    light = page.picture(tmp_path / "light.png")
    page.prefer(prefers_color_scheme="dark")
    dark = page.picture(tmp_path / "dark.png")
    assert light.mean() > 200
    assert dark.mean() < 70
    inks = page.ask(
        "return [...document.querySelectorAll('svg text')].map((t) => getComputedStyle(t).fill)"
    )
    assert "rgb(228, 230, 232)" in inks
    assert "rgb(38, 40, 43)" not in inks


@pytest.mark.parametrize("width", [500, 800, 1900])
def test_it_fits_into_any_window(page: Browser, width: int) -> None:
    page.driver.set_window_size(width, 800)
    assert page.ask("return document.documentElement.scrollWidth <= innerWidth")


def test_printed_it_has_no_controls(page: Browser) -> None:
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = page.ask(
            "return ['nav', '.tools', '.pages', '.scroll'].map((name) =>"
            " getComputedStyle(document.querySelector(name)).display)"
        )
        assert shown == ["none", "none", "none", "block"]
        heights = page.ask(
            "const place = document.querySelector('#processes .scroll');"
            "return place.scrollHeight - place.clientHeight"
        )
        assert heights <= 1  # nothing is cut off
        printed = page.driver.execute_cdp_cmd("Page.printToPDF", {})["data"]
        assert len(printed) > 20_000
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_without_javascript_the_beginning_is_there(browser: Browser, report: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(report)
        assert len(browser.driver.find_elements("css selector", ROWS)) == 50
        assert "The first 50 of 120 rows" in browser.find("#processes noscript").text
        assert not browser.find("#processes .tools").is_displayed()
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


# -- what can be done with it ----------------------------------------------------------------------


def test_tables_are_sorted_by_any_column(page: Browser) -> None:
    assert column(page, 1)[:3] == ["0", "1", "2"]
    button = heading(page, 1).find_element("css selector", "button")
    button.click()
    button.click()
    assert column(page, 1)[:3] == ["119", "118", "117"]
    assert heading(page, 1).get_attribute("aria-sort") == "descending"
    heading(page, 2).find_element("css selector", "button").click()
    assert set(column(page, 2)[:40]) == {"node-1"}  # and node-2 before node-10
    assert column(page, 2)[40:] == ["node-2"] * 10
    assert heading(page, 1).get_attribute("aria-sort") is None
    # Equal ones stay in their order, and what is missing comes last, both ways.
    for _ in range(2):
        heading(page, 5).find_element("css selector", "button").click()
        assert column(page, 5)[:24] == ["3"] * 24
        assert column(page, 5)[24:] == [""] * 26
        assert column(page, 1)[:3] == ["3", "8", "13"]


def test_tables_are_filtered_by_words_and_outcomes(page: Browser) -> None:
    field = page.find("#processes input")
    field.send_keys("NODE-10 timeout")
    assert page.find("#processes .found").text == "8 of 120 rows"
    assert set(column(page, 2)) == {"node-10"}
    field.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert page.find("#processes .found").text == "120 rows"
    choice = page.find("#processes select[data-choice]")
    assert choice.text.split("\n") == ["all", "ok (72)", "exit code (24)", "timeout (24)"]
    choice.send_keys("exit")
    assert set(column(page, 4)) == {"exit code"}
    field.send_keys("no such word")
    assert column(page, 1) == []
    assert page.find("#processes .shown").text == "none"


def test_tables_are_turned_over_like_pages(page: Browser) -> None:
    assert page.find("#processes .shown").text == "1 to 50"
    page.find("#processes [data-go=on]").click()
    page.find("#processes [data-go=on]").click()
    assert page.find("#processes .shown").text == "101 to 120"
    assert column(page, 1) == [str(number) for number in range(100, 120)]
    assert not page.find("#processes [data-go=on]").is_enabled()
    page.find("#processes [data-go=first]").click()
    assert column(page, 1)[0] == "0"
    page.find("#processes [data-size]").send_keys("all")
    assert len(column(page, 1)) == 120
    assert not page.find("#hosts .pages").is_displayed()


def test_it_can_be_used_by_keyboard_alone(page: Browser) -> None:
    def focused() -> Any:
        return page.driver.switch_to.active_element

    focused().send_keys(Keys.TAB)
    assert focused().text == "To the content"
    for _ in range(60):
        focused().send_keys(Keys.TAB)
        if page.ask("return !!document.activeElement.closest('#processes')"):
            break
    assert focused().tag_name == "input"
    focused().send_keys("node-2", Keys.TAB, Keys.TAB)
    assert page.ask("return document.activeElement.className") == "scroll"
    focused().send_keys(Keys.TAB)
    focused().send_keys(Keys.ENTER, Keys.SPACE)
    assert column(page, 1)[:2] == ["118", "115"]
    assert set(column(page, 2)) == {"node-2"}


def test_every_control_has_a_name(page: Browser) -> None:
    for control in page.driver.find_elements("css selector", "input, select, button, a, .scroll"):
        if control.is_displayed():
            assert control.accessible_name, control.get_attribute("outerHTML")


# -- what is harmless ------------------------------------------------------------------------------


def test_texts_of_any_kind_are_shown_and_do_nothing(browser: Browser, tmp_path: Path) -> None:
    runs = [hostile_run(text) for text in HOSTILE]
    whole = replace(
        runs[0],
        processes=[
            replace(row, number=2 * place + row.number)
            for place, run in enumerate(runs)
            for row in run.processes
        ],
        combinations=[one for run in runs for one in run.combinations],
        states={one: state for run in runs for one, state in run.states.items()},
        results=[row for run in runs for row in run.results],
    )
    browser.open(write_report(whole, tmp_path / "report.html", plots=[]))
    browser.ask("for (const one of document.querySelectorAll('th button')) one.click()")
    browser.find("#processes input").send_keys("<script>")
    assert browser.complaints() == []
    assert browser.ask("return window.hacked") is None
    assert browser.ask("return document.querySelectorAll('.hacked, td *, main img').length") == 0
    assert "<script>window.hacked = 1</script>" in column(browser, 3)


def test_what_gets_in_all_the_same_is_not_run(page: Browser) -> None:
    page.ask(
        "document.body.insertAdjacentHTML('beforeend',"
        " '<img src=x onerror=\"window.hacked=1\"><img src=http://127.0.0.1:9/a>');"
        "const script = document.createElement('script');"
        "script.textContent = 'window.hacked = 1'; document.body.append(script);"
        "return fetch('http://127.0.0.1:9/').catch(() => 0)"
    )
    assert page.ask("return window.hacked") is None
    refused = " ".join(page.complaints())
    for directive in ("script-src", "img-src", "default-src"):
        assert directive in refused


def test_ten_thousand_rows(browser: Browser, tmp_path: Path) -> None:
    processes = [
        process(number, f"node-{number % 40}", number / 10, number / 10 + 30)
        for number in range(10_000)
    ]
    browser.open(write_report(run_of(*processes), tmp_path / "report.html"))
    assert browser.find("#processes .found").text == "10 000 rows".replace(" ", "\u202f", 1)
    browser.find("#processes input").send_keys("9999")
    assert column(browser, 1) == ["9999"]
