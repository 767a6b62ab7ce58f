"""Assemble the report page: one HTML file with its data, styles, code and chart library inside."""

import base64
import hashlib
import json
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any, Final

_SCRIPTS: Final = ("format.js", "selection.js", "charts.js", "sections.js", "main.js")
"""Our own code, in the order in which it is joined to one module."""


def render_page(data: dict[str, Any], *, livemode: bool) -> str:
    """Return the page. It needs no other file and makes no request.

    Args:
        data: The datasets of one mode, as `read_data` returns them.
        livemode: Whether the page shows live mode.
    """
    folder = files("orchestration.report") / "page"
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    library = _as_inline_script(_chart_library())
    return Template((folder / "report.html").read_text(encoding="utf-8")).substitute(
        title=f"Recovery report ({'live' if livemode else 'test'} mode)",
        policy=_content_security_policy(library, script),
        style=(folder / "report.css").read_text(encoding="utf-8"),
        data=json.dumps({"livemode": livemode, "datasets": data}, separators=(",", ":")).replace("<", "\\u003c"),
        library=library,
        script=script,
    )


def _chart_library() -> str:
    """Return Observable Plot and d3, as the package pyobsplot ships them: a module that defines `Plot` and `d3`.

    The package itself is not imported, since it imports Jupyter's widgets and polars.
    """
    spec = find_spec("pyobsplot")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    return (Path(folder) / "static" / "static-widget.js").read_text(encoding="utf-8")


def _as_inline_script(code: str) -> str:
    """Return JavaScript that HTML reads as one script: no end tag and no comment may begin in it."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _content_security_policy(*scripts: str) -> str:
    """Return a policy that allows these scripts and no request. The library writes its own style elements."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
