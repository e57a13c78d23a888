"""A database of the stress tests' own on the tests' PostgreSQL; and an account with 120 credits, on either ledger."""

from __future__ import annotations

import os

import psycopg
import pytest
from postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE stress")
    return postgres.url.replace("/postgres?", "/stress?")


@pytest.fixture(params=["sqlite", "postgresql"])
def account(request, credit_gateway, monkeypatch) -> str:
    """A gateway with 120 credits and a ledger; the account's name."""
    if request.param == "postgresql":
        monkeypatch.setenv("CREDITGUARD_LEDGER", request.getfixturevalue("postgres_url"))
    return f"pool-{os.urandom(4).hex()}"
