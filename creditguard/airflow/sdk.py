"""What creditguard takes of Airflow, by way of the provider that has it for Airflow 2 and 3; and one sentence where that is too old."""

from __future__ import annotations

from typing import Any

try:
    from airflow.providers.common.compat import sdk as _sdk
except ImportError:
    from importlib.metadata import version

    raise ImportError(
        "creditguard works in Airflow 2.11, and in 3.1 and later, with apache-airflow-providers-common-compat 1.14 or later; "
        f"this is Airflow {version('apache-airflow')}: pip install 'creditguard[airflow]' with an Airflow that is supported"
    ) from None


def __getattr__(name: str) -> Any:
    if name == "PythonOperator":
        from airflow.providers.common.compat.standard import operators

        return operators.PythonOperator
    return getattr(_sdk, name)
