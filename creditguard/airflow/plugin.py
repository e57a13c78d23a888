"""An Airflow plugin (entry point group `airflow.plugins`): the page that shows a run's credit report, in Airflow 3.1 and later.

The page holds no data. It asks Airflow's public API for the XCom `credit_report`, with the reader's own session: who may read
the task's XComs sees the report, and nobody else.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any, ClassVar

from airflow import __version__
from airflow.plugins_manager import AirflowPlugin


def _apps() -> list[dict[str, Any]]:
    if __version__.startswith("2."):
        return []
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse

    app = FastAPI(title="creditguard", docs_url=None, redoc_url=None, openapi_url=None)
    page = files("creditguard.airflow").joinpath("report.html").read_text(encoding="utf-8")

    @app.get("/report", response_class=HTMLResponse)
    def report() -> str:
        return page

    return [{"app": app, "url_prefix": "/creditguard", "name": "creditguard"}]


class CreditGuardPlugin(AirflowPlugin):
    """The report's page."""

    name = "creditguard"
    fastapi_apps: ClassVar[list[dict[str, Any]]] = _apps()
