"""One whole tiny bake, made by the command itself, for all end-to-end tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.tiny import PREFERENCES, fournil, write_tiny


@dataclass(frozen=True)
class Baked:
    """A finished bake: its recipe, its storage and what the command printed."""

    recipe: Path
    storage: Path
    output: str

    def run(self, *arguments: str, timeout: float = 300):
        return fournil(*arguments, "--storage", str(self.storage), timeout=timeout)


@pytest.fixture(scope="session")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Baked:
    folder = tmp_path_factory.mktemp("bake")
    recipe, storage = write_tiny(folder, more=PREFERENCES), folder / "storage"
    done = fournil("bake", str(recipe), "--storage", str(storage), timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return Baked(recipe, storage, done.stdout)
