"""The report page in a real browser: its figures are those of the marts, for every selection, on any screen."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.report import ChangesInvalid, ReportUnavailable, write_report, write_reports
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.web.report_page import ReportPage
from tests.support import pipeline
from tests.support.browser import CHROMIUM_FLAGS
from tests.support.built_folder import BuiltFolder

SECTIONS = {
    "figures",
    "weeks",
    "today",
    "forecast",
    "accuracy",
    "curve",
    "flow",
    "reasons",
    "timing",
    "attempts",
    "waited",
    "days-of-month",
    "waiting",
    "stock",
    "accounts",
    "links",
    "double-charges",
    "coverage",
}


@dataclass
class ShownPage:
    """A page in the browser, with what it requested and what its code logged."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def cards(self) -> dict[str, float | None]:
        """Return the value of each of the five figures by its label."""
        script = """[...document.querySelectorAll("#figures .card")].map((card) =>
            [card.querySelector("h3").textContent, card.dataset.value])"""
        return {label: float(value) if value else None for label, value in self.page.evaluate(script)}

    def table(self, section: str) -> list[list[str]]:
        """Return the values of a section's table: those behind the text of each cell."""
        script = """(id) => [...document.querySelectorAll(`#${id} tbody tr`)].map((row) =>
            [...row.cells].map((cell) => cell.dataset.value))"""
        rows: list[list[str]] = self.page.evaluate(script, section)
        return rows


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        started = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def published(built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the analysts' file of two simulated accounts, one with many currencies and one with bank debits."""
    folder = built_folder.copy(tmp_path_factory.mktemp("report"))
    for seed, shop, payments in ((1, "mixed", 2_000), (2, None, 600)):
        account = SimulatedAccount(seed=seed, payments=payments, shop=shop)
        with SimulatorServer(account) as server:
            settings = Settings(stripe_api_key=DEFAULT_API_KEY, stripe_api_base=server.url, recoup_data_dir=folder)
            pipeline.extract(settings)
    pipeline.build(settings)
    pipeline.publish_marts(settings)
    return settings.published_path


@pytest.fixture(scope="module")
def report(published: Path) -> Path:
    published.with_name("changes.csv").write_text("date,label\n2026-03-12,new <schedule>\n", encoding="utf-8")
    (written,) = write_reports(published)
    return written.path


def show(browser: Browser, path: Path, selection: str = "", **options: Any) -> ShownPage:
    """Open a page and wait until it is drawn."""
    shown = ShownPage(browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **options}))
    shown.page.on("request", lambda request: shown.requests.append(request.url))
    shown.page.on("console", lambda message: shown.complaints.append(message.text))
    shown.page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    shown.page.goto(f"{path.as_uri()}{selection}")
    shown.page.wait_for_selector("html[data-ready=true]")
    return shown


@pytest.fixture
def shown(browser: Browser, report: Path) -> Iterator[ShownPage]:
    """Yield the page, which must have made one request and logged nothing when the test ends."""
    made = show(browser, report)
    yield made
    assert [url for url in made.requests if not url.startswith("data:")] == [report.as_uri()]
    assert made.complaints == []
    made.page.close()


def test_every_section_is_shown_with_its_conclusion_and_its_sql(shown: ShownPage) -> None:
    ids = shown.page.evaluate("[...document.querySelectorAll('main section')].map((section) => section.id)")
    assert sorted(ids) == sorted(SECTIONS)
    for section in SECTIONS:
        text = shown.page.locator(f"#{section}").inner_text()
        assert "undefined" not in text, section
        assert "NaN" not in text, section
        assert "Show the SQL" in text, section
    charts = shown.page.evaluate(
        "[...document.querySelectorAll('figure')].map((each) => [each.getAttribute('aria-label'), "
        "each.querySelector('svg')?.getAttribute('role'), each.querySelector('svg')?.getAttribute('aria-label')])"
    )
    assert len(charts) >= 11
    assert [chart for chart in charts if chart[1] != "img" or not chart[2] or chart[0] != chart[2]] == []
    assert "new <schedule>" in shown.page.locator("#weeks").inner_text()


def read(published: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(published), read_only=True) as connection:
        return connection.execute(sql, parameters).fetchall()


def selections(published: Path) -> list[tuple[str, str, str, str]]:
    """Return selections of all kinds: each currency, account and class, alone and together, by amount and by count."""
    cells = read(
        published,
        "SELECT currency, account_id, first_failure_class FROM marts.recovery_episodes WHERE is_in_scope GROUP BY ALL",
    )
    found = {
        (currency, account if chosen & 1 else "all", failure if chosen & 2 else "all")
        for currency, account, failure in cells
        for chosen in range(4)
    }
    return [(*each, weight) for each in sorted(found) for weight in ("amount", "count")]


def test_every_figure_is_that_of_the_marts_for_every_selection(shown: ShownPage, published: Path) -> None:
    compared = 0
    for currency, account, failure, weight in selections(published):
        hash_ = f"#currency={currency}&account={account}&class={failure}&weight={weight}"
        shown.page.evaluate("(hash) => { location.hash = hash }", hash_)
        shown.page.wait_for_function("(hash) => location.hash === hash", arg=hash_)
        scope = f"currency = '{currency}' AND '{account}' IN (account_id, 'all')"
        classes = f"{scope} AND '{failure}' IN (first_failure_class, 'all')"
        wait_for_selection(shown, currency, account, failure, weight)
        assert shown.cards() == pytest.approx(expected_figures(published, classes, weight), nan_ok=True), hash_
        assert weeks_of(shown) == expected_weeks(published, classes, weight), hash_
        assert reasons_of(shown) == expected_reasons(published, classes.replace("first_failure", "failure")), hash_
        assert stock_of(shown) == expected_stock(published, scope, weight), hash_
        assert forecast_of(shown) == pytest.approx(expected_forecast(published, classes, weight)), hash_
        compared += 1
    assert compared > 40


def wait_for_selection(shown: ShownPage, *values: str) -> None:
    names = ("currency", "account", "class", "weight")
    script = "(pairs) => pairs.every(([name, value]) => document.getElementById(`by-${name}`)?.value === value)"
    shown.page.wait_for_function(script, arg=[list(pair) for pair in zip(names, values, strict=True)])


def expected_figures(published: Path, where: str, weight: str, days_back: int = 0) -> dict[str, float | None]:
    """Compute the five figures from the episodes and, for the rate, as the mart recovery_rates defines its periods."""
    amounts = ("at_risk_amount", "recovered_amount_net", "at_risk_amount - recovered_amount")
    at_risk, net, unpaid = ("1", "1", "1") if weight == "count" else amounts
    ((failed, recovered, rate, open_, lost),) = read(
        published,
        f"""
        WITH e AS (
            SELECT *, data_through_at - INTERVAL {30 + days_back} DAY AS since,
                data_through_at - INTERVAL {days_back} DAY AS until,
                coalesce(first_succeeded_at, first_paid_at) AS paid_at, recovery_status LIKE 'lost%' AS is_lost,
                CASE WHEN recovery_status = 'lost_canceled' AND canceled_at < window_ends_at THEN canceled_at
                    ELSE window_ends_at END AS lost_at
            FROM marts.recovery_episodes JOIN (SELECT account_id, data_through_at FROM marts.data_coverage)
                USING (account_id)
            WHERE is_in_scope AND {where}
        )
        SELECT
            coalesce(sum({at_risk}) FILTER (first_failed_at > since AND first_failed_at <= until), 0),
            coalesce(sum({net}) FILTER (paid_at > since AND paid_at <= until), 0),
            avg((recovery_status = 'recovered')::INT) FILTER (window_ends_at > since AND window_ends_at <= until),
            coalesce(sum({at_risk}) FILTER (recovery_status = 'in_recovery'), 0),
            coalesce(sum({unpaid}) FILTER (is_lost AND lost_at > since AND lost_at <= until), 0)
        FROM e""",
    )
    return {
        "At risk: failed in the last 30 days": float(failed),
        "Came back in the last 30 days, net": float(recovered),
        "Recovery rate within 30 days": rate,
        "In recovery now": float(open_),
        "Lost in the last 30 days": float(lost),
    }


def test_the_thirty_days_before_are_those_of_the_marts(report: Path, published: Path) -> None:
    """In recovery is not compared: the marts show it for today only, or by day (test of the stock)."""
    text = report.read_text(encoding="utf-8")
    data = json.loads(text.split('id="data">', 1)[1].split("</script>", 1)[0])["datasets"]["figures"]
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    for currency in {row["currency"] for row in rows}:
        own = [row for row in rows if row["currency"] == currency and row["days_back"] == 30]
        expected = list(expected_figures(published, f"currency = '{currency}'", "amount", 30).values())
        sums = [sum(row[name] or 0 for row in own) for name in ("failed_amount", "recovered_amount", "lost_amount")]
        assert sums == [expected[0], expected[1], expected[4]], currency
        matured, recovered = (sum(row[f"matured{name}_count"] for row in own) for name in ("", "_recovered"))
        assert (recovered / matured if matured else None) == pytest.approx(expected[2]), currency


def weeks_of(shown: ShownPage) -> dict[tuple[str, str], float]:
    return {(row[0], row[1]): float(row[2]) for row in shown.table("weeks")}


def expected_weeks(published: Path, where: str, weight: str) -> dict[tuple[str, str], float]:
    value = "count(*)" if weight == "count" else "sum(at_risk_amount)"
    rows = read(
        published,
        f"""SELECT strftime(first_failed_date - (isodow(first_failed_date)::INT - 1), '%Y-%m-%d'),
                CASE WHEN recovery_status IN ('lost_canceled', 'lost_expired') THEN 'lost'
                    ELSE replace(recovery_status, '_', ' ') END, {value}
            FROM marts.recovery_episodes WHERE is_in_scope AND {where} GROUP BY ALL""",
    )
    return {(week, outcome): float(sum_) for week, outcome, sum_ in rows}


def reasons_of(shown: ShownPage) -> dict[str, tuple[float, float]]:
    return {row[0]: (float(row[4]), float(row[5])) for row in shown.table("reasons")}


def expected_reasons(published: Path, where: str) -> dict[str, tuple[float, float]]:
    rows = read(
        published,
        f"""SELECT failure_code, sum(failed_count), sum(at_risk_amount) FROM marts.decline_reasons
            WHERE outcome = 'failed' AND {where} GROUP BY ALL HAVING sum(failed_count) > 0""",
    )
    return {code: (float(failed), float(amount)) for code, failed, amount in rows}


def stock_of(shown: ShownPage) -> list[float]:
    return [float(row[-1]) for row in shown.table("stock")]


def expected_stock(published: Path, where: str, weight: str) -> list[float]:
    """Add up what each account had in recovery on the last day of a week, for the weeks in which it has days."""
    rows = read(
        published,
        f"""WITH d AS (
                SELECT *, date_trunc('week', activity_date) AS week FROM marts.recovery_activity_daily WHERE {where}
            ), last AS (
                SELECT account_id, week, max(activity_date) AS activity_date FROM d GROUP BY ALL
            )
            SELECT sum(closing_in_recovery_{weight}) FROM d JOIN last USING (account_id, week, activity_date)
            GROUP BY week ORDER BY week DESC LIMIT 16""",
    )
    return [float(sum_) for (sum_,) in reversed(rows)]


def forecast_of(shown: ShownPage) -> list[float]:
    return [float(row[1]) for row in shown.table("forecast")]


def expected_forecast(published: Path, where: str, weight: str) -> list[float]:
    rows = read(
        published,
        f"""SELECT sum(expected_{weight}) FROM marts.recovery_forecast WHERE {where}
            GROUP BY days_ahead ORDER BY days_ahead""",
    )
    return [float(sum_) for (sum_,) in rows]


def test_the_rate_of_all_payments_is_that_of_the_mart(shown: ShownPage, published: Path) -> None:
    ((currency, account, rate),) = read(
        published,
        """SELECT currency, account_id, recovery_rate FROM marts.recovery_rates
           WHERE period = 'last_30_days' AND NOT is_all_currencies ORDER BY failed_count DESC LIMIT 1""",
    )
    shown.page.evaluate(f"location.hash = '#currency={currency}&account={account}'")
    wait_for_selection(shown, currency, account, "all", "amount")
    assert shown.cards()["Recovery rate within 30 days"] == pytest.approx(rate)


def test_the_selection_is_kept_in_the_address_and_a_wrong_one_is_ignored(shown: ShownPage, report: Path) -> None:
    shown.page.select_option("#by-weight", "count")
    shown.page.select_option("#by-class", "declined")
    assert "weight=count" in shown.page.url
    assert "class=declined" in shown.page.url
    wanted = shown.page.locator("#weeks .conclusion").inner_text()
    shown.page.reload()
    shown.page.wait_for_selector("html[data-ready=true]")
    shown.requests.clear()
    shown.requests.append(report.as_uri())
    assert shown.page.locator("#weeks .conclusion").inner_text() == wanted
    shown.page.evaluate("location.hash = '#currency=xxx&weight=<b>&class=nonsense'")
    shown.page.wait_for_function("document.getElementById('by-weight').value === 'amount'")


def test_japanese_and_kuwaiti_money_has_its_own_decimals(shown: ShownPage, published: Path) -> None:
    for currency, decimals in (("jpy", 0), ("kwd", 3)):
        shown.page.evaluate(f"location.hash = '#currency={currency}'")
        shown.page.wait_for_function(f"document.getElementById('by-currency').value === '{currency}'")
        ((minor,),) = read(
            published,
            f"SELECT sum(at_risk_amount) FROM marts.recovery_episodes WHERE is_in_scope AND currency = '{currency}'",
        )
        cells = shown.page.evaluate(
            "[...document.querySelectorAll('#weeks tbody tr')].map(({ cells }) => [cells[2].textContent, "
            "+cells[2].dataset.value])"
        )
        assert sum(value for _, value in cells) == minor
        for text, value in cells:
            digits = text.replace(",", "").lstrip("¥KWD \u00a0")
            assert digits == f"{value / 10**decimals:.{decimals}f}", text


CONTRAST = """() => {
  const channel = (value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = parse(getComputedStyle(each).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const poor = [];
  const texts = "h1, h2, h3, p, td, th, summary, label, select, strong, a, li, footer";
  for (const element of document.querySelectorAll(texts)) {
    if (!element.innerText?.trim() || element.classList.contains("skip")) continue;
    const both = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (both[0] + 0.05) / (both[1] + 0.05);
    if (ratio < 4.5) poor.push([element.tagName, element.innerText.slice(0, 40), ratio]);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_schemes(scheme: Any, browser: Browser, report: Path) -> None:
    made = show(browser, report, color_scheme=scheme)
    background = made.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is (scheme == "light")
    assert made.page.evaluate(CONTRAST) == []
    assert made.complaints == []
    made.page.close()


def test_the_page_fits_a_phone_and_prints_on_a4(browser: Browser, report: Path) -> None:
    made = show(browser, report, viewport={"width": 390, "height": 800})
    assert made.page.evaluate("document.documentElement.scrollWidth") == 390
    made.page.set_viewport_size({"width": 1200, "height": 900})
    made.page.wait_for_function("document.querySelector('#weeks svg').getBoundingClientRect().width > 900")
    printed = made.page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert 2 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") <= 30
    assert made.complaints == []
    made.page.close()


def test_every_control_can_be_reached_with_the_keyboard(shown: ShownPage) -> None:
    reached = []
    for _ in range(12):
        shown.page.keyboard.press("Tab")
        reached.append(
            shown.page.evaluate("((each) => each.id || each.className || each.tagName)(document.activeElement)")
        )
    assert reached[0] == "skip"
    assert reached[1:5] == ["by-currency", "by-account", "by-class", "by-weight"]
    assert "SUMMARY" in reached
    shown.page.locator("#weeks summary").first.focus()
    shown.page.keyboard.press("Enter")
    assert shown.page.locator("#weeks details[open] table").is_visible()
    shown.page.locator("#by-class").focus()
    shown.page.keyboard.press("ArrowDown")
    shown.page.wait_for_function("document.getElementById('by-class').value !== 'all'")
    assert shown.page.evaluate("document.activeElement.id") == "by-class", "the focus stays where it was"


def test_the_policy_forbids_requests_and_other_scripts(browser: Browser, report: Path) -> None:
    made = show(browser, report)
    blocked = made.page.evaluate(
        """async () => {
            const refused = [];
            document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
            document.body.append(Object.assign(document.createElement("img"), { src: "http://127.0.0.1:9/x.png" }));
            document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = true" }));
            await fetch("http://127.0.0.1:9/").catch(() => 0);
            await new Promise((resolve) => setTimeout(resolve, 200));
            return [refused.sort(), window.ran ?? false];
        }"""
    )
    assert blocked == [["connect-src", "img-src", "script-src-elem"], False]
    made.page.close()


def test_without_data_the_page_says_so(browser: Browser, built_folder: BuiltFolder, tmp_path: Path) -> None:
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path / "data"))
    pipeline.publish_marts(settings)
    written = write_report(settings.published_path, tmp_path / "empty.html")
    made = show(browser, written.path)
    text = made.page.locator("body").inner_text()
    assert "No account has been synced yet" in text
    assert "No payment has failed yet" in text
    assert made.complaints == []
    made.page.close()


def test_a_young_account_has_sentences_instead_of_charts(
    browser: Browser, built_folder: BuiltFolder, tmp_path: Path
) -> None:
    account = SimulatedAccount(seed=3, payments=400, days=6)
    with SimulatorServer(account) as server:
        settings = Settings(
            stripe_api_key=DEFAULT_API_KEY,
            stripe_api_base=server.url,
            recoup_data_dir=built_folder.copy(tmp_path / "data"),
        )
        pipeline.extract(settings)
    pipeline.build(settings)
    pipeline.publish_marts(settings)
    made = show(browser, write_report(settings.published_path, tmp_path / "young.html").path)
    text = made.page.locator("body").inner_text()
    for sentence in ("No week's recovery window is over yet.", "No forecast is 30 days old yet.", "too few"):
        assert sentence in text, sentence
    assert "NaN" not in text
    assert made.complaints == []
    made.page.close()


def test_the_twenty_questions_are_answered_by_a_section_or_by_sql() -> None:
    text = (PROJECT_ROOT / "dbt_project" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?\?) \| (report|SQL): (.+?) \|$", text, re.M)
    assert len(rows) == 20
    for question, where, answer in rows:
        if where == "SQL":
            sql = text.split(f"**{answer}**", 1)[1].split("```sql\n", 1)[1].split("```", 1)[0]
            assert len(sql.strip().splitlines()) <= 10, question
        else:
            assert set(answer.split(", with")[0].split(", ")) <= SECTIONS, question


def test_the_page_holds_no_more_than_the_datasets(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    data = json.loads(text.split('id="data">', 1)[1].split("</script>", 1)[0])
    columns = {column for dataset in data["datasets"].values() for column in dataset["columns"]}
    assert not [column for column in columns if "customer" in column or "email" in column or column == "metadata"]
    assert len(text) < 3 * 2**20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"day,label\n2026-01-01,x\n", "the first line must be `date,label`"),
        (b"date,label\n01.02.2026,x\n", "line 2: '01.02.2026' is not a date. Write it like 2026-01-31."),
        (b"date,label\n2026-01-01,x\n\n2026-13-01,y\n", "line 4: '2026-13-01' is not a date"),
        (b"date,label\n2026-01-01,\xff\n", "is not a CSV file in UTF-8"),
        (b"date,label\n2026-01-01,a,b\n", "line 2: more than two columns. Put a label with a comma in quotes."),
        (b'date,label\n2026-01-01,"a\n2026-02-01,b\n', "is not a CSV file in UTF-8: unexpected end of data"),
    ],
)
def test_wrong_changes_are_explained_and_keep_the_older_page(
    content: bytes, message: str, published: Path, tmp_path: Path
) -> None:
    own = tmp_path / published.name
    shutil.copy(published, own)
    written = write_report(own, tmp_path / "page.html")
    before = written.path.read_bytes()
    (tmp_path / "changes.csv").write_bytes(content)
    with pytest.raises(ChangesInvalid) as raised:
        write_report(own, written.path)
    assert message in str(raised.value)
    assert written.path.read_bytes() == before


def test_a_mode_without_data_and_a_folder_as_target_are_refused(published: Path, tmp_path: Path) -> None:
    with pytest.raises(ReportUnavailable, match="has no data of live mode"):
        write_report(published, tmp_path / "live.html", livemode=True)
    with pytest.raises(ReportUnavailable, match="is a folder"):
        write_report(published, tmp_path)
    assert list(tmp_path.iterdir()) == []
    own = tmp_path / published.name
    shutil.copy(published, own)
    leftover = tmp_path / "report_live.html"
    leftover.write_text("of an earlier account")
    assert [report.livemode for report in write_reports(own)] == [False]
    assert not leftover.exists()


def test_the_ui_serves_the_current_page_and_passes_on_everything_else(published: Path, tmp_path: Path) -> None:
    own = tmp_path / published.name

    async def ui(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("the UI")(scope, receive, send)

    client = TestClient(ReportPage(ui, own))
    assert client.get("/report").status_code == 503
    shutil.copy(published, own)
    page = tmp_path / "report_test.html"
    assert client.get("/report").text == client.get("/report/test/").text == page.read_text(encoding="utf-8")
    assert client.get("/report/live").status_code == 404
    page.write_text("an older page")
    assert client.get("/report").text == "an older page", "a page that is newer than the data is not written again"
    os.utime(page, (0, 0))
    assert client.get("/report").text.startswith("<!doctype html>")
    assert client.post("/report").text == client.get("/runs").text == client.get("/reports").text == "the UI"


def test_without_a_published_file_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReportUnavailable, match="does not exist yet"):
        write_reports(tmp_path / "recovery.duckdb")
    (tmp_path / "recovery.duckdb").write_bytes(b"no database")
    with pytest.raises(ReportUnavailable, match="cannot be read"):
        write_reports(tmp_path / "recovery.duckdb")
