"""Whatever the tests before this one have done: the keys are in no file that Airflow has written."""

from __future__ import annotations


def test_no_key_in_logs_xcoms_rendered_templates_or_the_database(airflow, gateway, gateways) -> None:
    from airflow.models.connection import Connection  # the database's, not the SDK's
    from airflow.utils.session import create_session

    with create_session() as session:
        session.add(Connection(conn_id="apimall_stored", conn_type="apimall", host=gateway.url, password=gateway.key))
    for dag_id in ("decorated", "mapped", "sensor_rescheduled", "sensor_deferred"):
        assert airflow.run(dag_id, budget=20).state == "success"
    result = airflow.run("with_connection", budget=20, conn_id="apimall_stored")
    assert result.xcom("return_value", "enrich")["balance_before"] == 100

    files = [path for path in airflow.home.rglob("*") if path.is_file()]
    everything = {path.relative_to(airflow.home): path.read_bytes() for path in files}
    database = [written for path, written in everything.items() if path.name.startswith("airflow.db")]
    assert any(b"apimall_stored" in written for written in database)
    for each in gateways:
        assert [path for path, written in everything.items() if each.key.encode() in written] == []
