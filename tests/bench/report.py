"""Size of the report page, and the time to write and to show it: a part of `make bench`.

The baseline is an empty page in the same browser. RECOUP_BENCH_PUBLISHED names another analysts' file, such as that of
an account with 2 million attempts.
"""

import shutil
import time
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from orchestration.report import write_report
from tests.support.browser import CHROMIUM_FLAGS

SHOWN: Final = 3
"""How often each page is opened; the shortest time counts."""


def main(console: Console, published: Path, folder: Path) -> None:
    """Print the figures of the report of an analysts' file. `folder` gets the pages."""
    started, cpu = time.perf_counter(), time.process_time()
    report = write_report(published, folder / "report.html")
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    empty = folder / "empty.html"
    empty.write_text("<!doctype html><html data-ready=true><body>empty", encoding="utf-8")
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        drawn, baseline = (min(_milliseconds(browser, page) for _ in range(SHOWN)) for page in (report.path, empty))
        browser.close()
    table = Table("report", "MiB", "written in s", "CPU s", "drawn after ms", "ms ÷ empty page")
    cells = (f"{report.size / 2**20:.2f}", f"{seconds:.2f}", f"{cpu_seconds:.2f}", f"{drawn:.0f}")
    table.add_row(published.name, *cells, f"{drawn / baseline:.1f}")
    console.print(table)


def _milliseconds(browser: Browser, page: Path) -> float:
    """Return the time from the start of the navigation to the last chart."""
    shown = browser.new_page()
    shown.goto(page.as_uri())
    shown.wait_for_selector("html[data-ready=true]", state="attached")
    milliseconds: float = shown.evaluate("performance.getEntriesByName('drawn')[0]?.startTime ?? performance.now()")
    shown.close()
    return milliseconds
