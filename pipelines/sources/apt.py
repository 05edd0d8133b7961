"""Debian packages and package descriptions through apt, in private folders: no root rights, nothing installed.

The machine's own sources.list, proxies and keys are used; its package lists and installed packages are not touched.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import RequestError, WorkError
from pipelines.sources.config import package_alternatives

HELPER = "/usr/lib/apt/apt-helper"
POLL_SECONDS = 0.2
SHOW_FIELDS = ("Package", "Version", "Architecture", "Size", "SHA256")


@dataclass(frozen=True)
class Package:
    """One package as the archive's signed lists describe it."""

    name: str
    version: str
    architecture: str
    bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """What `apt-get download` calls it."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


def is_available() -> bool:
    """Whether this machine has apt."""
    return shutil.which("apt-get") is not None


class Apt:
    """apt with its state in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("lists/partial", "cache", "deb"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        self._options = [
            f"-oDir::State::Lists={folder / 'lists'}",
            f"-oDir::Cache={folder / 'cache'}",
            f"-oDir::State::status={folder / 'status'}",
            f"-oDir::State::extended_states={folder / 'extended_states'}",
            "-oAPT::Update::Post-Invoke-Success=",
            "-oAPT::Update::Error-Mode=any",
            "-oAPT::Sandbox::User=root",
            "-oAcquire::Retries=3",
        ]

    def update(self, language: str = "none") -> None:
        """Fetch the package lists and the descriptions in one language; those of other languages go."""
        self._run("apt-get", f"-oAcquire::Languages={language}", "update", "-qq")

    def descriptions(self, language: str) -> bytes:
        """The descriptions that the last `update` fetched in `language`, of all suites, decompressed."""
        wanted = re.compile(rf"_(main|universe)_i18n_Translation-{language}(\.\w+)?$")
        lists = sorted(path for path in (self._folder / "lists").iterdir() if wanted.search(path.name))
        if not lists:
            raise WorkError(f"the Debian archive gave no package descriptions in {language!r}; set `paths` of that source to local lists")
        return b"\n\n".join(self._run(HELPER, "cat-file", str(path)) for path in lists)

    def find(self, wanted: Iterable[str]) -> dict[str, Package]:
        """The newest version of each wanted package; of `a | b` the first that the archive has."""
        wanted = sorted(set(wanted))
        names = sorted({name for package in wanted for name in package_alternatives(package)})
        command = ["apt-cache", *self._options, "show", "--no-all-versions", *names]
        shown = subprocess.run(command, capture_output=True, check=False, env=_plain_environment())
        known = {package.name: package for package in parse_show(shown.stdout.decode("utf-8", "replace"))}
        found = {}
        for package in wanted:
            name = next((name for name in package_alternatives(package) if name in known), None)
            if name is None:
                raise RequestError(f"the Debian archive has no package {package!r}; correct `packages`, or drop the sources that name it")
            found[package] = known[name]
        return found

    def download(self, packages: Sequence[Package], done: Callable[[Path, Package], None], tick: Callable[[int], None]) -> None:
        """Download `packages`; `done` takes each file once it is whole and has the right SHA-256, `tick` the bytes so far."""
        folder = self._folder / "deb"
        missing = [package for package in packages if not _is_whole(folder / package.file_name, package)]
        for package in missing:
            (folder / package.file_name).unlink(missing_ok=True)
        if missing:
            names = [f"{package.name}={package.version}" for package in missing]
            command = [*_dying_with_parent(), "apt-get", *self._options, "download", "-qq", *names]
            with subprocess.Popen(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_plain_environment()
            ) as process:
                while process.poll() is None:
                    tick(sum(path.stat().st_size for path in folder.glob("*.deb")))
                    time.sleep(POLL_SECONDS)
                output = process.stdout.read() if process.stdout else b""
            if process.returncode:
                raise WorkError(f"apt-get could not download packages ({_reason(output)}); check the network and run again")
        for package in packages:
            if not _is_whole(folder / package.file_name, package):
                raise WorkError(f"{package.file_name} does not have the SHA-256 that the Debian archive states; run again")
            done(folder / package.file_name, package)

    def _run(self, program: str, *arguments: str) -> bytes:
        command = [*_dying_with_parent(), program, *self._options, *arguments]
        finished = subprocess.run(command, capture_output=True, check=False, env=_plain_environment())
        if finished.returncode:
            reason = _reason(finished.stderr + b"\n" + finished.stdout)
            raise WorkError(f"{Path(program).name} {arguments[-2]} failed ({reason}); check the network and /etc/apt, and run again")
        return finished.stdout


def parse_show(text: str) -> list[Package]:
    """The packages in the output of `apt-cache show`."""
    packages = []
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.split("\n") if ": " in line and not line.startswith(" "))
        if all(field in fields for field in SHOW_FIELDS):
            name, version, architecture, size, sha256 = (fields[field] for field in SHOW_FIELDS)
            packages.append(Package(name, version, architecture, int(size), sha256))
    return packages


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_whole(path: Path, package: Package) -> bool:
    return path.is_file() and path.stat().st_size == package.bytes and sha256_of(path) == package.sha256


def _dying_with_parent() -> list[str]:
    """A prefix that ends apt when this process is killed, so that the next attempt finds no other apt at work."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


def _plain_environment() -> dict[str, str]:
    """Messages in English, so that errors read alike everywhere."""
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _reason(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return next((line for line in lines if line.startswith(("E:", "Err:"))), lines[-1] if lines else "no reason given")
