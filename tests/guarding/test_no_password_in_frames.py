"""A ledger's URL may be an argument of a guard: no frame of ours, and no guard, shows the password in it."""

from __future__ import annotations

import pickle

import pytest
from renderers import RENDERERS, showing

from creditguard import ConfigurationError, CreditGuardError, guard
from creditguard.ledgers import open_ledger

PASSWORD = "hunter2"
WRONG = {
    "a budget": {"budget": -1},
    "a label": {"labels": 3},
    "an option that there is not": {"budgte": 1},
    "a policy beside a ledger": {"on_short": "perhaps"},
}


@pytest.mark.parametrize("options", WRONG.values(), ids=WRONG)
def test_a_wrong_option_beside_the_url(options):
    with pytest.raises((ConfigurationError, TypeError)) as caught:
        guard("job", ledger=f"postgresql://me:{PASSWORD}@db.example/ledger", **{"budget": 1, **options})
    assert showing(caught.value, PASSWORD) == []


@pytest.mark.parametrize("form", ["postgresql://me:{}@127.0.0.1:9/x", "mysql://me:{}@db/x", "me:{}@db"])
@pytest.mark.parametrize("error", [None, ZeroDivisionError])
def test_a_guard_that_is_entered_in_vain(credit_gateway, monkeypatch, form, error):
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "1")

    class Job:
        """A budget that fails, in no frame that knows the password."""

        def __call__(self):
            raise error

    made = guard("job", budget=Job() if error else 1, ledger=form.format(PASSWORD))
    with pytest.raises((CreditGuardError, ZeroDivisionError)) as caught, made:
        pytest.fail("it was admitted")
    assert showing(caught.value, PASSWORD) == []
    assert PASSWORD not in str(vars(made))


def test_a_guard_takes_its_ledger_along(credit_gateway, tmp_path):
    made = pickle.loads(pickle.dumps(guard("job", budget=1, ledger=f"sqlite:///{tmp_path}/ledger.db")))
    with made as run:
        pass
    assert run.report.outcome == "succeeded"
    assert (tmp_path / "ledger.db").exists()


def test_the_ledger_itself_shows_no_password_and_takes_it_along():
    ledger = open_ledger(f"postgresql://me:{PASSWORD}@127.0.0.1:9/x?sslpassword={PASSWORD}2")
    assert PASSWORD not in f"{ledger!r} {vars(ledger)}"
    again = pickle.loads(pickle.dumps(ledger))
    assert again._passwords == ledger._passwords
    assert [each.get_secret_value() for each in again._passwords.values()] == [PASSWORD, f"{PASSWORD}2"]


def test_the_renderers_would_show_it():
    with pytest.raises(ZeroDivisionError) as caught:
        _careless(f"postgresql://me:{PASSWORD}@db.example/ledger")
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    assert [name for name, render in RENDERERS.items() if PASSWORD in render(error)] == list(RENDERERS)


def _careless(url):
    return len(url) / 0
