"""A database of the stress tests' own on the tests' PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest
from postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE stress")
    return postgres.url.replace("/postgres?", "/stress?")
