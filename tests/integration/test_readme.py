"""The READMEs' claims: queries run; tables, files, headings, commands and make targets exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from orchestration.cli.demo import DEMO_SHOP, KINDS
from orchestration.config.settings import PROJECT_ROOT, Settings
from orchestration.pipeline.dbt_runner import DBT_PROJECT_DIR, failure_text, invoke_dbt
from orchestration.setup.pipeline import make_build_options
from orchestration.simulator import DEFAULT_API_KEY, SimulatedAccount, SimulatorServer
from orchestration.stripe_api import permissions_link
from orchestration.stripe_api.key_check import RESOURCES
from tests.support import pipeline
from tests.support.built_folder import BuiltFolder

PAGES = {
    name: (PROJECT_ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "orchestration/README.md",
        "dbt_project/README.md",
        "data/README.md",
        "tests/README.md",
        ".github/CONTRIBUTING.md",
    )
}
README, OPERATING = PAGES["README.md"], PAGES["orchestration/README.md"]
ALL = "\n".join(PAGES.values())
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", ALL, re.S))
QUERIES = re.findall(r'recoup query "(.+?)"', SHELL.replace('"…"', ""), re.S)
ANSWERS = [
    query
    for name in ("README.md", "dbt_project/README.md")
    for query in re.findall(r"```sql\n(.*?)```", PAGES[name], re.S)
    if "{{" not in query and not query.startswith("-- Compiled")  # a model is not a query
]
MAY_BE_EMPTY = ("marts.experiment_results", "previous_failure_code = 'insufficient_funds'")
"""Parts of queries that a small account does not answer: it has no experiment, and few retries of one code."""
IN_TEXT = re.findall(r"`(SELECT .+?)`", README)


@pytest.fixture(scope="module")
def published(
    built_folder: BuiltFolder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield the published file of a small account."""
    with SimulatorServer(SimulatedAccount(seed=31, payments=2_000, days=60, shop=DEMO_SHOP)) as server:
        settings = Settings(
            stripe_api_key=DEFAULT_API_KEY,  # type: ignore[arg-type]
            stripe_api_base=server.url,
            recoup_data_dir=built_folder.copy(tmp_path_factory.mktemp("readme")),
        )
        pipeline.extract(settings)
    pipeline.build(settings)
    pipeline.publish_marts(settings)
    with duckdb.connect(str(settings.published_path), read_only=True) as connection:
        yield connection


@pytest.mark.parametrize("query", [*QUERIES, *ANSWERS, *IN_TEXT])
def test_every_query_of_the_readme_returns_rows(query: str, published: duckdb.DuckDBPyConnection) -> None:
    rows = published.execute(query).fetchall()
    assert rows or any(part in query for part in MAY_BE_EMPTY)


def test_the_readme_has_queries_and_names_exactly_the_published_marts(published: duckdb.DuckDBPyConnection) -> None:
    assert len(QUERIES) >= 2
    assert len(ANSWERS) >= 8
    assert IN_TEXT
    rows = published.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'marts'").fetchall()
    named = set(re.findall(r"^\| `marts\.(\w+)` \|", README, re.M))
    assert named == {name for (name,) in rows}


def normalized(sql: str) -> str:
    """Return the SQL without values that differ between builds, the database's name, quotes and white space."""
    return re.sub(r"(?<=_load_id >= )\d+|(?<=limit )\d+|(?<=timestamp )'.*?'|\"warehouse\"\.|\"|\s", "", sql)


def compiled_block(title: str) -> str:
    (shown,) = re.findall(rf"```sql\n-- Compiled {title}\n(.*?)```", PAGES["dbt_project/README.md"], re.S)
    return normalized(shown)


@pytest.mark.parametrize("arguments", [["--full-refresh"], []])
def test_the_compiled_sql_of_the_readme_is_what_dbt_compiles(
    arguments: list[str], built_folder: BuiltFolder, tmp_path: Path
) -> None:
    settings = Settings(recoup_data_dir=built_folder.copy(tmp_path))
    done = invoke_dbt(make_build_options(settings), ["compile", *arguments, "--select", "int_payment_attempts_unioned"])
    assert done.success, failure_text(done, settings.dbt_log_dir)
    compiled = normalized(done.result.results[0].node.compiled_code)
    assert compiled.startswith(compiled_block(f"{'with' if arguments else 'without'} --full-refresh")), compiled


def test_the_statements_of_the_strategy_are_in_the_readme() -> None:
    macro = (DBT_PROJECT_DIR / "macros/strategies.sql").read_text("utf-8")
    (body,) = re.findall(r"-%\}\n(    delete from .*?)\n    \{\{ 'where \(' ~ tombstone", macro, re.S)
    for name, value in (
        ("keys", "account_id, livemode, payment_intent_id"),
        ("arg_dict['target_relation']", "intermediate.int_payment_attempts_unioned"),
        ("arg_dict['temp_relation']", "int_payment_attempts_unioned__dbt_tmp"),
    ):
        body = body.replace(f"{{{{ {name} }}}}", value)
    assert normalized(body) + ";" == compiled_block("by replace_keys")


def test_the_source_of_the_compiled_sql_is_in_the_readme_as_it_is() -> None:
    (shown,) = re.findall(r"begins so:\n\n```sql\n(.*?\n)\)\n```", PAGES["dbt_project/README.md"], re.S)
    assert shown in (DBT_PROJECT_DIR / "models/intermediate/payments/int_payment_attempts_unioned.sql").read_text(
        "utf-8"
    )


def heading_anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    page = PROJECT_ROOT / name
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[name]):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in heading_anchors(target.read_text(encoding="utf-8")), link


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


def test_the_key_link_requests_exactly_the_required_permissions() -> None:
    required = [each.permission for each in RESOURCES if each.is_required]
    assert set(required) == {"rak_payment_intent_read", "rak_charge_read", "rak_event_read", "rak_dispute_read"}
    for livemode in (True, False):
        assert f"({permissions_link(required, livemode=livemode)})" in README


def test_the_readme_lists_the_kinds_of_shop_of_the_demo() -> None:
    (listed,) = re.findall(r"recoup demo --shop KIND`.*?\((.*?)\)", OPERATING, re.S)
    assert re.findall(r"`(\w+)`", listed) == list(KINDS)


def test_every_make_target_of_the_readme_exists() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", ALL, re.M))
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"demo", "test", "dev"} <= named <= targets


def test_every_recoup_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"(?:\.venv/bin/|`|^)recoup ([a-z][a-z-]+)", ALL, re.M))
    program = "from orchestration.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert {"sync", "demo", "dev", "query", "dbt"} <= named
    assert [name for name in named if not re.search(rf"^\W*{name}\b", result, re.M)] == []
