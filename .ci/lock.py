"""Print the pinned list of everything Fournil's CPU and dev set-up needs, read off the environment it runs in.

`make lock` writes it to requirements.lock. vLLM's torchvision, torchaudio and torchcodec are left out: they have no
CPU build that fits this torch, and the CUDA ones break `import transformers`; vLLM runs text models without them.
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "setuptools", "fournil"}


def closure(roots: list[str]) -> dict[str, str]:
    """Name to installed version for `roots` and all they need in this environment."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    queue = [Requirement(root) for root in roots]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if name in LEFT_OUT or key in seen:
            continue
        seen.add(key)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            print(f"missing: {requirement}", file=sys.stderr)
            continue
        found[name] = distribution.version
        for line in distribution.requires or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)):
                queue.append(needed)
    return found


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pins = closure([*project["dependencies"], *extras["cpu"], *extras["dev"]])
    print("# Written by `make lock`; installed with --no-deps by `make setup`. Python 3.11, Linux x86-64, CPU.")
    for name, version in sorted(pins.items()):
        # A local version (+cpu) is a build, not a release: the plain pin takes whichever build the index offers.
        print(f"{name}=={version.split('+')[0]}")


if __name__ == "__main__":
    main()
