"""A secret does not show, and what was given by a program goes along to another process; what comes out of work on one keeps no frames."""

from __future__ import annotations

import pickle
import traceback

import pytest

from creditguard.rules.secret import GivenSecret, SecretText, without_frames

HUSH = "sk-0123456789abcdef"


@pytest.mark.parametrize("kind", [SecretText, GivenSecret])
def test_it_shows_nowhere_and_equals_another_by_its_text(kind: type[SecretText]) -> None:
    secret = kind(HUSH)
    assert f"{secret} {secret!r} {[secret]}" == f"{kind.__name__}(***) {kind.__name__}(***) [{kind.__name__}(***)]"
    assert secret.get_secret_value() == HUSH
    assert {secret: 1} == {kind(HUSH): 1}
    assert secret != kind("another")
    assert secret != HUSH


def test_what_was_read_is_not_pickled_and_what_was_given_goes_along() -> None:
    with pytest.raises(TypeError, match="a secret is not pickled"):
        pickle.dumps(SecretText(HUSH))
    assert pickle.loads(pickle.dumps(GivenSecret(HUSH))) == GivenSecret(HUSH)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_comes_out_as_it_is_without_the_frames_that_it_came_through(error: BaseException) -> None:
    def work() -> None:
        text = HUSH
        try:
            raise LookupError(text)
        except LookupError:
            raise error  # noqa: B904 - the first one has frames with the secret, too

    handled = RuntimeError("what the caller was at")
    with pytest.raises(type(error)) as caught:
        try:
            raise handled
        except RuntimeError:
            without_frames(work)
    assert caught.value is error
    assert error.__context__ is handled
    shown = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert shown[1:] == ["without_frames"]


def test_what_work_returns_is_returned() -> None:
    assert without_frames(lambda: 3) == 3
