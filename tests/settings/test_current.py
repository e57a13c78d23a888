"""`settings.current()` reads again what has changed, and nothing else; nobody who interrupts it meets a lock."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from freezegun import freeze_time

from creditguard import ConfigurationError, guard, settings
from creditguard.settings import files


@pytest.fixture
def reads(monkeypatch):
    """How often files were looked for."""
    looks = []

    def search(directory):
        looks.append(directory)
        return files.search(directory)

    monkeypatch.setattr(settings, "search", search)
    return looks


def write(path, text):
    """As long ago as if it had not been written for this test: what is younger than a tick of the clock is not kept."""
    path.write_text(text)
    before = time.time_ns() - 10**10
    os.utime(path, ns=(before, before))


def test_settings_are_read_once_as_long_as_nothing_changes(gateway, places, reads):
    write(places.own, "keep = 1")
    with freeze_time(tick=False):
        for _ in range(3):
            with guard("nightly", budget=5):
                pass
        assert settings.current() is settings.current()
    assert len(reads) == 1


@pytest.mark.parametrize(
    "variable", ["CREDITGUARD_ACCOUNT", "APIMALL_API_KEY", "HOME", "XDG_CONFIG_HOME", "CREDITGUARD_CONFIG"]
)
def test_a_variable_that_changes_is_seen_at_once(places, reads, monkeypatch, variable):
    with freeze_time(tick=False):
        settings.current()
        write(places.home / "5", "")
        monkeypatch.setenv(variable, "../5")
        settings.current()
        settings.current()
        monkeypatch.delenv(variable)
        settings.current()
    assert len(reads) == 3


def test_a_variable_is_seen_whoever_holds_the_environment(places, monkeypatch):
    monkeypatch.setenv("CREDITGUARD_KEEP", "1")
    assert settings.current().keep == 1
    os.environb[b"CREDITGUARD_KEEP"] = b"2"
    assert settings.current().keep == 2
    monkeypatch.setattr(os, "environ", {"CREDITGUARD_KEEP": "3", "HOME": str(places.home)})
    assert settings.current().keep == 3


def test_a_file_in_use_and_one_in_the_working_directory_are_seen_at_once(places):
    with freeze_time(tick=False):
        assert settings.current().keep == 0
        write(places.work / "pyproject.toml", "[tool.creditguard]\nkeep = 1")
        assert settings.current().keep == 1
        write(places.own, "keep = 2")
        assert settings.current().keep == 2
        write(places.own, "keep = 33")
        assert settings.current().keep == 33
        places.own.unlink()
        assert settings.current().keep == 1
        (places.work / "pyproject.toml").unlink()
        assert settings.current().keep == 0


def test_a_file_that_was_just_written_is_read_again_though_its_time_and_size_may_stay(places, reads):
    places.own.write_text("keep = 1")
    now = places.own.stat()
    assert settings.current().keep == 1
    with places.own.open("r+") as file:
        file.write("keep = 2")
    os.utime(places.own, ns=(now.st_mtime_ns, now.st_mtime_ns))
    assert settings.current().keep == 2


def test_another_working_directory_has_other_settings(places):
    write(places.own, "keep = 1")
    other = places.home / "other"
    other.mkdir()
    write(other / "creditguard.toml", "keep = 2")
    for _ in range(2):
        assert settings.current().keep == 1
        os.chdir(other)
        assert settings.current().keep == 2
        os.chdir(places.work)


def test_whatever_else_changes_is_seen_after_a_second(places, monkeypatch):
    (places.home / "key").write_text("old")
    monkeypatch.setenv("APIMALL_API_KEY_FILE", "~/key")
    with freeze_time() as clock:
        assert settings.current().keep == 0
        write(places.home / "creditguard.toml", "keep = 1")
        (places.home / "key").write_text("new")
        assert settings.current().keep == 0
        clock.tick(1.1)
        assert settings.current().keep == 1
        assert settings.current().api_key.get_secret_value() == "new"


def test_what_is_read_again_and_is_the_same_stays_the_same_object(places, reads):
    write(places.own, "keep = 1")
    with freeze_time() as clock:
        before = settings.current()
        clock.tick(1.1)
        assert settings.current() is before
    assert len(reads) == 2


def test_a_mistake_is_told_every_time_and_forgotten_once_it_is_mended(places, monkeypatch):
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "soon")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="CREDITGUARD_TIMEOUT"):
            settings.current()
    monkeypatch.setenv("CREDITGUARD_TIMEOUT", "5")
    assert settings.current().timeout == 5


def test_a_signal_handler_and_other_threads_may_ask_at_any_instant(places):
    """A handler asks while the main thread does, some thousand times, and so do threads; a lock would hang here."""
    write(places.own, "keep = 1")
    settings.current()
    answers, end = [], threading.Event()

    def ask(*_):
        answers.append(settings.current().keep)

    def thread():
        while not end.is_set():
            ask()

    threads = [threading.Thread(target=thread) for _ in range(2)]
    before = signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    try:
        for each in threads:
            each.start()
        for number in range(300):
            os.environ["CREDITGUARD_MAX_AGE"] = str(number)  # so that it is read anew each time
            assert settings.current().max_age == number
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        end.set()
        for each in threads:
            each.join()
        del os.environ["CREDITGUARD_MAX_AGE"]
    assert set(answers) == {1}
