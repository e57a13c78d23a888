"""In a real Jupyter kernel: what a person sees under a cell."""

from __future__ import annotations

import pytest
from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.filterwarnings("default")  # whatever Jupyter's libraries warn of

CELL = """
from creditguard import guard
with guard("nightly", budget=80) as run:
    pass
run.report
"""


@pytest.fixture
def run_cell(gateway):
    """Run a cell in a kernel of its own: what it wrote to stderr, and what it showed as HTML."""
    manager = KernelManager(transport="ipc")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)

    def run(code):
        seen = []
        client.execute_interactive(code, output_hook=seen.append, timeout=60)
        written = "".join(each["content"]["text"] for each in seen if each["content"].get("name") == "stderr")
        shown = [each["content"]["data"]["text/html"] for each in seen if each["msg_type"] == "execute_result"]
        return written, shown

    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_line_for_each_event_and_the_report_as_a_sentence(run_cell):
    written, shown = run_cell(CELL)
    admitted, finished = written.splitlines()
    assert admitted.endswith("nightly: admitted, 80 of 120 credits held")
    assert "nightly: consumed 0 of 80 credits" in finished
    assert len(shown) == 1
    assert "consumed 0 of 80 credits" in shown[0]
