"""The paths the gateway knows: those of the provider, and two of its own."""

from __future__ import annotations

BALANCES = "/api/v1/account/balances"
GENERATE = "/api/v1/images/generate"
TASKS = "/api/v1/images/"  # and a task id
TASK = "/api/v1/images/{task_id}"  # any task, where requests are counted and faults matched
CONTROL = "/_sandbox/control"
STATE = "/_sandbox/state"
