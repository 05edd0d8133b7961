"""Commands about runs and jobs that are there: what they do, what they said, how one is stopped."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict
from typing import Annotated

import typer

from cluster.errors import RequestError
from fournil.terminal import JobAddressOption, JsonOption, RunArgument, StorageOption, console, print_rows, print_values, say


def status(
    run: Annotated[str | None, typer.Argument(help="run or job; all runs when left out")] = None,
    storage: StorageOption = None,
    address: JobAddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a run is doing, or how it ended.

    Example: `fournil status demo`
    """
    from fournil.runs import Run, open_storage

    if address is not None:
        from cluster import jobs

        if run is None:
            print_rows([asdict(job) for job in jobs.list_jobs(address)], as_json, empty=f"no jobs on {address}")
        else:
            print_values(asdict(jobs.describe_job(address, run)), as_json)
        return
    if run is None:
        runs(storage=storage, as_json=as_json)
        return
    place = Run(run, open_storage(storage))
    record = place.read()
    finished = place.artifacts()
    state = record["status"]
    if state == "running" and place.live_process() is None:
        state = "interrupted (the same `fournil bake` goes on)"
    stages = {
        stage: ("ready" if stage in finished else "running" if stage == record.get("stage") else "to do") for stage in record["artifacts"]
    }
    print_values({"run": run, "status": state, "error": record.get("error"), "stages": stages}, as_json)


def runs(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """List the runs in a storage.

    Example: `fournil runs`
    """
    from fournil.runs import list_runs, open_storage

    rows = [
        {key: record.get(key) for key in ("run", "status", "started", "finished")}
        for record in (r.read() for r in list_runs(open_storage(storage)))
    ]
    print_rows(rows, as_json, empty="no runs yet; make one with `fournil bake recipes/demo.yaml`")


def logs(
    run: RunArgument,
    storage: StorageOption = None,
    address: JobAddressOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="with --address: go on until the job ends")] = False,
) -> None:
    """Print what a run (or, with --address, a job) said, and where its engines' logs are.

    Example: `fournil logs demo`
    """
    if address is not None:
        from cluster import jobs

        if follow:
            jobs.follow(address, run, say)
        else:
            console.print(jobs.job_logs(address, run), markup=False, end="")
        return
    from fournil.bake import log_folder
    from fournil.runs import Run, open_storage

    place = Run(run, open_storage(storage))
    place.read()
    folder = log_folder(place)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    main_log = folder / "bake.log"
    if main_log.exists():
        console.print(main_log.read_text(encoding="utf-8"), markup=False, end="")
    for path in files:
        if path != main_log:
            say(f"log: {path} ({path.stat().st_size:,} bytes)")


def stop(run: RunArgument, storage: StorageOption = None, address: JobAddressOption = None) -> None:
    """Stop a running bake (or, with --address, a job); the same bake later goes on from its last commit.

    Example: `fournil stop demo`
    """
    if address is not None:
        from cluster import jobs

        say(f"job {run} stopped" if jobs.stop_job(address, run) else f"job {run} had ended already")
        return
    from fournil.runs import Run, open_storage

    process = Run(run, open_storage(storage)).live_process()
    if process is None:
        raise RequestError(f"run {run!r} is not being baked on this host")
    os.kill(process, signal.SIGTERM)
    say(f"run {run}: asked process {process} to stop")


def report(run: RunArgument, storage: StorageOption = None) -> None:
    """Print the path of a run's report.

    Example: `xdg-open $(fournil report demo)`
    """
    from fournil.runs import Run, open_storage

    place = Run(run, open_storage(storage))
    place.read()
    if not place.folder.exists("report/index.html"):
        raise RequestError(f"run {run!r} has no report yet; finish it with `fournil bake`")
    say(place.report_path)


def why(
    run: RunArgument,
    id: Annotated[str, typer.Argument(help="document id or its first digits")],
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell one document's whole story: where it came from, its scores, and what kept or removed it.

    Example: `fournil why demo 3f2a91`
    """
    from fournil.runs import Run, open_storage
    from pipelines.ledger import document_story

    place = Run(run, open_storage(storage))
    artifacts = {stage: artifact for stage, artifact in place.artifacts().items() if stage in ("extract", "score", "clean")}
    story = document_story({stage: artifact.folder for stage, artifact in artifacts.items()}, id)
    if as_json:
        events = [{"step": event.step, "what": event.what, **event.facts} for event in story]
        typer.echo(json.dumps(events, ensure_ascii=False, indent=1, default=str))
        return
    for event in story:
        say(f"{event.step:<14} {event.what}")
