"""What the tests of the settings share: places of their own for every file that is looked for, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from creditguard.sandbox import Gateway
from creditguard.settings import files


class Places:
    """A home with a project in it, which is the working directory; the user's and the system's configuration."""

    def __init__(self, folder):
        self.home = folder / "home"
        self.work = self.home / "project"
        self.user = self.home / ".config/creditguard/config.toml"
        self.system = folder / "etc/config.toml"
        for path in (self.work, self.user.parent, self.system.parent):
            path.mkdir(parents=True)

    @property
    def own(self):
        return self.work / "creditguard.toml"


@pytest.fixture
def places(tmp_path, monkeypatch):
    places = Places(tmp_path)
    monkeypatch.setenv("HOME", str(places.home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(files, "SYSTEM", str(places.system))
    monkeypatch.chdir(places.work)
    return places


@pytest.fixture
def gateway(credit_gateway: Gateway) -> Gateway:
    return credit_gateway


@pytest.fixture
def check():
    """`creditguard check --budget 5`, in a process of its own: its exit code, and the lines on stderr."""

    def run():
        command = [sys.executable, "-m", "creditguard", "check", "--budget", "5"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=dict(os.environ))
        return done.returncode, done.stderr.splitlines()

    return run
