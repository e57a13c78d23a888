"""An Airflow plugin (entry point group `airflow.plugins`): the page that shows a run's credit report, in Airflow 3.1 and later.

The page holds no data. It asks Airflow's public API for the XCom `credit_report`, with the reader's own session: who may read
the task's XComs sees the report, and nobody else. Every process of Airflow loads its plugins, so this one imports no web framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin


async def page(
    scope: dict[str, Any], _: Callable[[], Awaitable[Any]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """The page, as an ASGI application that Airflow mounts at /creditguard."""
    found = scope["method"] in {"GET", "HEAD"} and scope["path"].endswith("/report")
    text = files("creditguard.airflow").joinpath("report.html").read_bytes() if found else b"not found"
    kind = b"text/html; charset=utf-8" if found else b"text/plain"
    headers = [(b"content-type", kind), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})


class CreditGuardPlugin(AirflowPlugin):
    """The report's page."""

    name = "creditguard"
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [{"app": page, "url_prefix": "/creditguard", "name": "creditguard"}]
