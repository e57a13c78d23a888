"""The credits of a run for OpenLineage, where Airflow's provider for it is installed: a run facet named `creditguard`."""

from __future__ import annotations

from typing import Any

import attr
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.generated.base import RunFacet


@attr.define
class CreditsRunFacet(RunFacet):
    """What a guarded task may have consumed and has; the words are those of the report."""

    guard_run_id: str
    job: str
    account: str
    unit: str
    outcome: str
    basis: str
    budget: float
    credits_consumed: float | None = None
    over_budget: bool | None = None


def lineage(report: dict[str, Any] | None) -> OperatorLineage:
    """The facet of a report; nothing for a task that has none."""
    if report is None:
        return OperatorLineage()
    given = {field.name: report[field.name] for field in attr.fields(CreditsRunFacet) if field.name in report}
    return OperatorLineage(run_facets={"creditguard": CreditsRunFacet(guard_run_id=report["run_id"], **given)})
