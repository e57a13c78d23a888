"""The rules for what is given to a guard or set for it: what is taken, and what is said of what is not."""

from __future__ import annotations

import pickle
from decimal import Decimal

import pytest

from creditguard import ConfigurationError
from creditguard.rules import arguments
from creditguard.rules.amounts import shown
from creditguard.rules.secret import SecretText
from creditguard.rules.values import SettleTime


@pytest.mark.parametrize(
    ("parse", "value", "result"),
    [
        ("text", " a ", "a"),
        ("name", " nightly ", "nightly"),
        ("seconds", "1.5", 1.5),
        ("timeout", 10, 10.0),
        ("settle", 30, SettleTime(30.0)),
        ("settle", "stable", SettleTime(60.0, stable=True)),
        ("settle", "stable:120", SettleTime(120.0, stable=True)),
        ("policy", "warn", "warn"),
        ("overrun", "stop", "stop"),
        ("log_format", "none", "none"),
        ("switch", "on", True),
        ("switch", "off", False),
        ("switch", True, True),
        ("budget", "0.25", Decimal("0.25")),
        ("keep", -5, Decimal(-5)),
        ("thresholds", (1, 0.5, 0.5), (Decimal("0.5"), Decimal(1))),
    ],
)
def test_what_is_taken(parse, value, result):
    assert getattr(arguments, f"parse_{parse}")(value, "it") == result


@pytest.mark.parametrize(
    ("parse", "value", "said"),
    [
        ("text", 5, "text"),
        ("name", "\n", "printable"),
        ("seconds", -1, "seconds"),
        ("seconds", True, "seconds"),
        ("seconds", "soon", "seconds"),
        ("timeout", 0, "at most 600"),
        ("settle", "a while", "'stable'"),
        ("settle", "stable:x", "after 'stable:'"),
        ("policy", "perhaps", "'abort' or 'warn'"),
        ("log_format", "xml", "'json', 'console' or 'none'"),
        ("switch", "maybe", "'on' or 'off'"),
        ("budget", -1, "negative"),
        ("thresholds", "0.5", "shares"),
        ("thresholds", 0.5, "shares"),
        ("thresholds", (0,), "more than 0"),
    ],
)
def test_what_is_not(parse, value, said):
    with pytest.raises(ConfigurationError, match=r"^it\b") as wrong:
        getattr(arguments, f"parse_{parse}")(value, "it")
    assert said in str(wrong.value)


def test_what_was_given_is_shown_shortly_and_whatever_it_is():
    class Bad:
        def __repr__(self):
            raise RuntimeError

    assert shown(Bad()) == "this Bad"
    assert len(shown("x" * 100)) == 40


def test_a_secret_shows_itself_to_nobody_who_does_not_ask():
    secret = SecretText("hidden")
    assert "hidden" not in f"{secret!r} {secret}"
    assert secret.get_secret_value() == "hidden"
    assert secret == SecretText("hidden") != SecretText("other")
    assert secret != "hidden"
    assert len({secret, SecretText("hidden")}) == 1
    with pytest.raises(TypeError):
        pickle.dumps(secret)
