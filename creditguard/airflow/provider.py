"""What Airflow asks its providers for (entry point group `apache_airflow_provider`). Imports nothing."""

from __future__ import annotations

from typing import Any

_INTEGRATION = "API Mall"


def get_provider_info() -> dict[str, Any]:
    """Hooks, operators, sensors, triggers, the connection type and the task decorator, for Airflow's provider manager."""
    return {
        "package-name": "creditguard",
        "name": "creditguard",
        "description": "A pre-flight credit guard: check the balance, hold the budget, report what was consumed.",
        "integrations": [
            {"integration-name": _INTEGRATION, "external-doc-url": "https://apimall.ai", "tags": ["service"]}
        ],
        "hooks": [{"integration-name": _INTEGRATION, "python-modules": ["creditguard.airflow.hooks"]}],
        "operators": [{"integration-name": _INTEGRATION, "python-modules": ["creditguard.airflow.operators"]}],
        "sensors": [{"integration-name": _INTEGRATION, "python-modules": ["creditguard.airflow.sensors"]}],
        "triggers": [{"integration-name": _INTEGRATION, "python-modules": ["creditguard.airflow.triggers"]}],
        "connection-types": [
            {
                "connection-type": "apimall",
                "hook-class-name": "creditguard.airflow.hooks.ApiMallHook",
                "hook-name": _INTEGRATION,
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": {
                    "account": {
                        "label": "Account name",
                        "description": "Where several keys draw on one pool: the name under which holds are counted.",
                        "schema": {"type": ["string", "null"]},
                    }
                },
            }
        ],
        "extra-links": ["creditguard.airflow.links.CreditReportLink"],
        "task-decorators": [
            {"name": "credit_guard", "class-name": "creditguard.airflow.decorators.credit_guard_task"},
        ],
    }


UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "schema", "port"],
    "relabeling": {"password": "API key", "host": "Gateway"},
    "placeholders": {
        "password": "the API Mall key",
        "host": "https://gateway.apimall.ai",
        "extra": '{"account": "the name of a pool that several keys draw on"}',
    },
}
"""As provider metadata (Airflow 3.2 and later); the hook hands out the same in the older spelling."""
