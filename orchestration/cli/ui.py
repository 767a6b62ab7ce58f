"""`python -m orchestration.cli.ui`: Dagster's webserver with Recoup's access guard and the report at /report.

It takes the arguments of `dagster-webserver`.
"""

from typing import Any

from dagster_webserver.cli import main
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware

from orchestration.config.settings import Settings
from orchestration.web.report_page import ReportPage
from orchestration.web.ui_guard import UiGuard


def _guard_webserver() -> None:
    """Add the access guard and the report to every webserver that this process creates."""
    build = DagsterWebserver.build_middleware

    def build_guarded(webserver: DagsterWebserver[Any, Any]) -> list[Middleware]:
        settings = Settings()
        guard = Middleware(UiGuard, hosts=settings.ui_hosts)
        report = Middleware(ReportPage, published=settings.published_path)
        return [guard, report, *build(webserver)]

    DagsterWebserver.build_middleware = build_guarded  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    _guard_webserver()
    main()  # type: ignore[no-untyped-call]
