"""How things are measured here: ours and its peers alternately, in the same run, each as a child process.

A child is pinned to the cores it may use, its thread pools are held to that number, and it prints one line of JSON
(`drivers/driver.py`). What it counts must be the same in every repeat: a benchmark that is fast and wrong fails.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
DRIVERS = Path(__file__).resolve().parent / "drivers"
RESULTS = Path(__file__).resolve().parent / "results"

OURS = "fournil"
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
)
Counts = Mapping[str, Any]
"""Exact numbers beside a figure, and the names of what they are."""
QUIET_SHARE = 0.9
"""A pinned single-threaded child that got less of its core than this did not have the machine to itself."""


class BenchmarkError(Exception):
    """A child failed, or counted differently in two repeats."""


@dataclass(frozen=True)
class Contender:
    """Something to measure: its name with version, and the command of one repeat. `cores` are the CPUs it may use, `seconds` the
    most that a repeat may take."""

    name: str
    command: tuple[str, ...]
    cores: tuple[int, ...] = (0,)
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 1800.0


@dataclass(frozen=True)
class Sample:
    """One repeat: wall and CPU seconds of one pass over the input, exact counts, and whatever else the driver said."""

    seconds: float
    cpu_seconds: float
    counts: dict[str, Any]
    more: dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """All repeats of one contender. Counts are equal in all of them."""

    contender: Contender
    samples: tuple[Sample, ...]

    @property
    def counts(self) -> dict[str, Any]:
        return self.samples[0].counts

    @property
    def seconds(self) -> float:
        """Median over the repeats."""
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median."""
        times = [sample.seconds for sample in self.samples]
        return (max(times) - min(times)) / self.seconds

    def most(self, name: str) -> float:
        """The largest value of one of the driver's other readings."""
        return max(float(sample.more[name]) for sample in self.samples)

    @property
    def had_its_core(self) -> bool:
        return all(sample.cpu_seconds >= QUIET_SHARE * sample.seconds for sample in self.samples)


def driver(name: str, python: str | Path = sys.executable) -> tuple[str, str]:
    """The beginning of the command that runs a driver script."""
    return str(python), str(DRIVERS / f"{name}.py")


def alternate(contenders: Sequence[Contender], repeats: int) -> dict[str, Measurement]:
    """Measure all contenders `repeats` times, taking turns, so that drift of the machine meets all alike."""
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for repeat in range(repeats):
        for contender in contenders:
            sample = run_child(contender)
            earlier = samples[contender.name]
            if earlier and earlier[0].counts != sample.counts:
                raise BenchmarkError(f"{contender.name} counted {earlier[0].counts}, then {sample.counts}")
            earlier.append(sample)
            say(f"  {contender.name}: {sample.seconds:.2f} s ({repeat + 1}/{repeats})")
    return {contender.name: Measurement(contender, tuple(samples[contender.name])) for contender in contenders}


def run_child(contender: Contender) -> Sample:
    """One repeat in a child process; a child that fails is a `BenchmarkError` with its last words."""
    cores = tuple(core for core in contender.cores if core in os.sched_getaffinity(0)) or tuple(sorted(os.sched_getaffinity(0)))[:1]
    threads = {name: str(len(cores)) for name in THREAD_VARIABLES}
    environment = {
        **os.environ,
        **threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONHASHSEED": "0",
        **contender.environment,
    }
    try:
        done = subprocess.run(
            contender.command,
            capture_output=True,
            text=True,
            env=environment,
            cwd=REPOSITORY,
            timeout=contender.seconds,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{contender.name} took more than {contender.seconds:.0f} s") from None
    if done.returncode != 0:
        raise BenchmarkError(f"{contender.name} failed: {_last_line(done.stderr) or _last_line(done.stdout)}")
    try:
        said = json.loads(_last_line(done.stdout))
        return Sample(said.pop("seconds"), said.pop("cpu_seconds"), said.pop("counts"), said)
    except (ValueError, KeyError, AttributeError):
        raise BenchmarkError(f"{contender.name} printed no result: {_last_line(done.stdout)!r}") from None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def rate_row(name: str, unit: str, amount: float, ours: Measurement, peer: Measurement, counts: Counts) -> dict[str, Any]:
    """A row of speeds (`amount` of the unit's numerator in one pass): ratio above 1 means ours is faster."""
    return row(name, unit, amount / ours.seconds, (peer.contender.name, amount / peer.seconds), counts, {"ours": ours, "peer": peer})


def cost_row(name: str, unit: str, ours: float, peer: tuple[str, float], counts: Counts) -> dict[str, Any]:
    """A row of costs, where less is better: the ratio is peer over ours."""
    return {**row(name, unit, ours, peer, counts), "ratio": peer[1] / ours if ours else None}


def row(
    name: str,
    unit: str,
    value: float,
    peer: tuple[str, float] | None,
    counts: Counts,
    measured: Mapping[str, Measurement] | None = None,
) -> dict[str, Any]:
    """One row of a results file, where more is better; `peer` is a name and its value.

    `measured` holds what was timed, under `ours` and `peer`; its exact counts join `counts`, and its number of repeats and
    its spread, (slowest - fastest) / median, are given.
    """
    measured = measured or {}
    return {
        "name": name,
        "unit": unit,
        "ours": value,
        "peer": peer[0] if peer else None,
        "peer_value": peer[1] if peer else None,
        "ratio": value / peer[1] if peer and peer[1] else None,
        "counts": {**counts, **{side: measurement.counts for side, measurement in measured.items()}},
        "repeats": {side: len(measurement.samples) for side, measurement in measured.items()},
        "spread": {side: round(measurement.spread, 3) for side, measurement in measured.items()},
    }


def quiet_notes(measurements: Iterable[Measurement]) -> list[str]:
    """A line for each single-core contender that shared its core with something else."""
    return [
        f"not a quiet machine: {measurement.contender.name} got less than {QUIET_SHARE:.0%} of its core in some repeat"
        for measurement in measurements
        if len(measurement.contender.cores) == 1 and not measurement.had_its_core
    ]


def write_results(folder: Path, name: str, rows: list[dict[str, Any]], versions: Mapping[str, str], notes: Sequence[str] = ()) -> Path:
    """Write `<folder>/<name>.json` whole."""
    result = {
        "machine": machine(),
        "versions": {"python": platform.python_version(), **installed("fournil", "ray", "pyarrow", "numpy", "numba"), **versions},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python " + " ".join(sys.orig_argv[1:]),
        "notes": list(notes),
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.json"
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps(_rounded(result), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    temporary.replace(target)
    return target


def _rounded(value: Any) -> Any:
    """Floats to four significant digits: more would claim a precision that timings do not have."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def machine() -> dict[str, Any]:
    """CPU model, cores this process may use, memory, operating system, load before the run."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load_before": LOAD_BEFORE,
    }


LOAD_BEFORE = round(os.getloadavg()[0], 2)


def installed(*packages: str) -> dict[str, str]:
    """Versions of the packages that this environment has."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def say(line: str) -> None:
    print(line, flush=True)
