"""The report page beside Dagster's UI, at /report. A request writes it again if the analysts' file has changed."""

import asyncio
from pathlib import Path
from typing import Final

from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestration.base.errors import RecoupError
from orchestration.report import current_reports, write_reports

_PATHS: Final = {"/report": None, "/report/live": True, "/report/test": False}
"""The addresses of the page, and the mode that each shows. None means live mode if there is any."""


class ReportPage:
    """ASGI middleware that answers /report, /report/live and /report/test, and passes on everything else.

    Args:
        app: The application of Dagster's UI.
        published: The analysts' file.
    """

    def __init__(self, app: ASGIApp, published: Path) -> None:
        self._app, self._published = app, published

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for the report, or pass the request on."""
        path = str(scope.get("path", "")).rstrip("/")
        if path not in _PATHS or scope.get("method") not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        response = await asyncio.to_thread(self._respond, _PATHS[path])
        await response(scope, receive, send)

    def _respond(self, livemode: bool | None) -> Response:
        try:
            page = self._current_page(livemode)
        except RecoupError as error:
            return PlainTextResponse(f"{error}\n", 503)
        if page is None:
            return PlainTextResponse("There is no data of this mode yet. Run `recoup sync`, or open /report.\n", 404)
        return HTMLResponse(page.read_bytes(), headers={"Cache-Control": "no-cache"})

    def _current_page(self, livemode: bool | None) -> Path | None:
        """Return the page's file, or None if the mode has no data. A page older than the data is written again."""
        for find in (current_reports, write_reports):
            for report in find(self._published):
                if livemode in (None, report.livemode):
                    return report.path
        return None
