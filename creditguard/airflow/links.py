"""The button on a guarded task's page that leads to its credit report."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from creditguard.airflow.sdk import BaseOperatorLink, conf


class CreditReportLink(BaseOperatorLink):
    """To the report of the task's run: a page of creditguard's own in Airflow 3 (see `plugin`), the task's XComs in Airflow 2."""

    name = "Credit report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002 - Airflow's signature
        from airflow import __version__

        query = {"task_id": ti_key.task_id, "map_index": ti_key.map_index}
        if __version__.startswith("2."):
            base, path = conf.get("webserver", "base_url", fallback=""), f"dags/{quote(ti_key.dag_id, safe='')}/grid"
            query |= {"dag_run_id": ti_key.run_id, "tab": "xcom"}
        else:
            base, path = conf.get("api", "base_url", fallback=""), "creditguard/report"
            query |= {"dag_id": ti_key.dag_id, "run_id": ti_key.run_id}
        return f"{(base or '').rstrip('/')}/{path}?{urlencode(query)}"
