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

        where = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": ti_key.map_index,
        }
        if not __version__.startswith("2."):
            return (
                f"{(conf.get('api', 'base_url', fallback='') or '').rstrip('/')}/creditguard/report?{urlencode(where)}"
            )
        base = conf.get("webserver", "base_url", fallback="").rstrip("/")
        place = {"dag_run_id": ti_key.run_id, "task_id": ti_key.task_id, "map_index": ti_key.map_index, "tab": "xcom"}
        return f"{base}/dags/{quote(ti_key.dag_id, safe='')}/grid?{urlencode(place)}"
