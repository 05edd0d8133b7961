"""The `fournil` command. Each command is thin: read the request, call the package that does the work, print."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cluster.errors import FournilError, RequestError

app = typer.Typer(
    name="fournil",
    help="From raw French and English documents to a chat model, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console(highlight=False, soft_wrap=True)

RecipeArgument = Annotated[Path, typer.Argument(help="YAML recipe, for example recipes/demo.yaml")]
RunArgument = Annotated[str, typer.Argument(help="name of a run (see `fournil runs`)")]
StorageOption = Annotated[str | None, typer.Option(help="folder or filesystem URL; FOURNIL_STORAGE or ./runs by default")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="change one recipe value: key.path=value (repeatable)")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
UntilOption = Annotated[str | None, typer.Option(help="last stage to make")]
JobAddressOption = Annotated[str | None, typer.Option(help="Ray dashboard of a submitted job, http://HEAD:8265")]


@app.command()
def bake(
    recipe: RecipeArgument,
    until: UntilOption = None,
    set_: SetOption = None,
    storage: StorageOption = None,
    address: Annotated[str, typer.Option(help="`local`, `auto` (a running cluster) or ray://HEAD:10001")] = "local",
    run: Annotated[str | None, typer.Option(help="run name; the recipe's by default")] = None,
) -> None:
    """Make everything the recipe describes; finished stages are kept, interrupted ones go on.

    Example: `fournil bake recipes/demo.yaml --set pretrain.tokens=500000`
    """
    from cluster.progress import Reporter
    from fournil.bake import bake as run_bake
    from fournil.recipe import load_recipe
    from fournil.runs import open_storage

    reporter = Reporter(console)
    done = run_bake(load_recipe(recipe, set_ or ()), open_storage(storage), run_name=run, address=address, until=until, reporter=reporter)
    if done.folder.exists("report/index.html"):
        reporter.say(f"report: {done.report_path}")


@app.command()
def submit(
    recipe: RecipeArgument,
    address: Annotated[str, typer.Option(help="dashboard of the cluster, http://HEAD:8265")],
    until: UntilOption = None,
    set_: SetOption = None,
    storage: Annotated[str | None, typer.Option(help="storage that every node sees: a shared folder or a filesystem URL")] = None,
    run: Annotated[str | None, typer.Option(help="run name; the recipe's by default")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="leave the job running and return at once")] = False,
) -> None:
    """Run the same bake as a Ray job on a cluster and follow its log.

    Example: `fournil submit recipes/demo.yaml --address http://10.0.0.1:8265 --storage /shared/fournil`
    """
    from cluster import jobs
    from fournil.recipe import load_recipe
    from fournil.runs import open_storage

    checked = load_recipe(recipe, set_ or ())
    extra = [*(f"--set={item}" for item in set_ or ()), *([f"--until={until}"] if until else []), *([f"--run={run}"] if run else [])]
    job = jobs.submit(address, recipe.read_text(encoding="utf-8"), checked.name, str(open_storage(storage)), extra, _say)
    if detach:
        _say(f"follow it with `fournil logs {job} --address {address} --follow`")
        return
    if jobs.follow(address, job, _say) in ("RUNNING", "PENDING"):
        return
    jobs.check_job(jobs.describe_job(address, job), address)
    _say(f"job {job}: done")


@app.command()
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
            _print_rows([asdict(job) for job in jobs.list_jobs(address)], as_json, empty=f"no jobs on {address}")
        else:
            _print(asdict(jobs.describe_job(address, run)), as_json)
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
    _print({"run": run, "status": state, "error": record.get("error"), "stages": stages}, as_json)


@app.command()
def runs(storage: StorageOption = None, as_json: JsonOption = False) -> None:
    """List the runs in a storage.

    Example: `fournil runs`
    """
    from fournil.runs import list_runs, open_storage

    rows = [
        {key: record.get(key) for key in ("run", "status", "started", "finished")}
        for record in (r.read() for r in list_runs(open_storage(storage)))
    ]
    _print_rows(rows, as_json, empty="no runs yet; make one with `fournil bake recipes/demo.yaml`")


@app.command()
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
            jobs.follow(address, run, _say)
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
            _say(f"log: {path} ({path.stat().st_size:,} bytes)")


@app.command()
def stop(run: RunArgument, storage: StorageOption = None, address: JobAddressOption = None) -> None:
    """Stop a running bake (or, with --address, a job); the same bake later goes on from its last commit.

    Example: `fournil stop demo`
    """
    if address is not None:
        from cluster import jobs

        _say(f"job {run} stopped" if jobs.stop_job(address, run) else f"job {run} had ended already")
        return
    from fournil.runs import Run, open_storage

    process = Run(run, open_storage(storage)).live_process()
    if process is None:
        raise RequestError(f"run {run!r} is not being baked on this host")
    os.kill(process, signal.SIGTERM)
    _say(f"run {run}: asked process {process} to stop")


@app.command()
def report(run: RunArgument, storage: StorageOption = None) -> None:
    """Print the path of a run's report.

    Example: `xdg-open $(fournil report demo)`
    """
    from fournil.runs import Run, open_storage

    place = Run(run, open_storage(storage))
    place.read()
    if not place.folder.exists("report/index.html"):
        raise RequestError(f"run {run!r} has no report yet; finish it with `fournil bake`")
    _say(place.report_path)


@app.command()
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
        _say(f"{event.step:<14} {event.what}")


@app.command()
def plan(
    recipe: RecipeArgument,
    gpu: Annotated[str | None, typer.Option(help="plan for this GPU: a100, h100, h200, b200, mi300x, ...")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="how many for each training stage; its workers in the recipe by default")] = None,
    mfu: Annotated[float | None, typer.Option(min=0.001, max=1.0, help="share of the GPUs' peak that the run uses; 0.4 by default")] = None,
    pue: Annotated[float | None, typer.Option(min=1.0, help="power of the centre per power of its machines; 1.2 by default")] = None,
    grams_per_kwh: Annotated[float | None, typer.Option(min=0.0, help="CO2-equivalent of the electricity; 57 by default")] = None,
    set_: SetOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a recipe's training costs before baking it: parameters, tokens, FLOPs and memory of each training stage, which
    stages are ready, and with --gpu time, GPU-hours, energy and CO2.

    Example: `fournil plan recipes/croissant-1b.yaml --gpu h100 --gpus 240`
    """
    from fournil.plan import describe_plan, sites_of
    from fournil.recipe import load_recipe
    from fournil.runs import open_storage

    checked = load_recipe(recipe, set_ or ())
    sites = sites_of(checked, gpu, gpus, mfu=mfu, pue=pue, grams_per_kwh=grams_per_kwh)
    _print(describe_plan(checked, open_storage(storage), sites, numbers=as_json), as_json)


@app.command()
def scale(
    recipe: RecipeArgument,
    at_once: Annotated[int | None, typer.Option(min=1, help="trials that run together; as many as there are cores by default")] = None,
    set_: SetOption = None,
    storage: StorageOption = None,
    address: Annotated[str, typer.Option(help="`local`, `auto` (a running cluster) or ray://HEAD:10001")] = "local",
    as_json: JsonOption = False,
) -> None:
    """Train the recipe's ladder of small models (its `scale` section) over sizes, tokens and mixes, fit the curves and
    recommend a mix; finished trials are kept.

    Example: `fournil scale recipes/demo.yaml --set "scale.mixes={less: {fr: 1, en: 3}, even: {fr: 1, en: 1}, more: {fr: 3, en: 1}}"`
    """
    from cluster.progress import Reporter
    from fournil.recipe import load_recipe
    from fournil.runs import open_storage
    from fournil.scale import describe_report, scale_recipe

    reporter = Reporter(Console(stderr=True, highlight=False, soft_wrap=True))
    report = scale_recipe(load_recipe(recipe, set_ or ()), open_storage(storage), address=address, at_once=at_once, reporter=reporter)
    _print(report if as_json else describe_report(report), as_json)


@app.command()
def tokenizer(
    recipe: RecipeArgument,
    sizes: Annotated[str | None, typer.Option(help="vocabulary sizes with commas between; the recipe's by default")] = None,
    set_: SetOption = None,
    storage: StorageOption = None,
    address: Annotated[str, typer.Option(help="`local`, `auto` (a running cluster) or ray://HEAD:10001")] = "local",
    as_json: JsonOption = False,
) -> None:
    """Fit vocabularies of several sizes on the recipe's mix and compare them, and public ones, on held-out text: tokens a word,
    bytes a token, the premium of one language over another, parameters; and infer the mix back from the merges.

    Example: `fournil tokenizer recipes/demo.yaml --sizes 4096,8192,16384,32768`
    """
    from cluster.progress import Reporter
    from fournil.recipe import load_recipe
    from fournil.runs import open_storage
    from fournil.vocabulary import sweep_recipe, sweep_tables

    reporter = Reporter(Console(stderr=True, highlight=False, soft_wrap=True))
    report = sweep_recipe(load_recipe(recipe, set_ or ()), open_storage(storage), sizes, address=address, reporter=reporter)
    if as_json:
        _print(report, as_json)
        return
    for title, rows in sweep_tables(report).items():
        _say(f"{title}:")
        _print_rows(rows, as_json, empty="nothing was measured")
        _say("")
    for line in [*(f"note: {warning}" for warning in report["warnings"]), *report["files"]]:
        _say(line)


@app.command()
def glitch(
    target: Annotated[str, typer.Argument(metavar="RUN|FOLDER", help="a run, or a folder with a Hugging Face model of a run")],
    stage: Annotated[str, typer.Option(help="the run's model after this stage: pretrain, anneal, sft or dpo")] = "pretrain",
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of the vocabulary to flag")] = 0.02,
    seen_below: Annotated[int, typer.Option(min=1, help="what counts as hardly seen in pretraining")] = 10,
    worst: Annotated[int, typer.Option(min=0, help="how many tokens to print")] = 20,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find tokens that the model has hardly learnt by their embeddings, and check them by their counts in training.

    Example: `fournil glitch demo`
    """
    from fournil.runs import open_storage
    from fournil.vocabulary import scan_lines, scan_target

    report = scan_target(target, open_storage(storage), stage, share=share, seen_below=seen_below, worst=worst)
    if as_json:
        _print(report, as_json)
        return
    _print_rows([{**row, "token": repr(row["token"])} for row in report["worst"]], as_json, empty="no token asked for")
    for line in scan_lines(report):
        _say(line)


@app.command()
def serve(
    target: Annotated[str, typer.Argument(metavar="RUN|FOLDER", help="a run, or a folder with a Hugging Face model")],
    port: Annotated[int | None, typer.Option(help="0 takes a free one; the recipe's (8000) by default")] = None,
    host: Annotated[str | None, typer.Option(help="loopback by default; anything else opens the endpoint to the network")] = None,
    ask: Annotated[
        list[str] | None, typer.Option(help="ask this over HTTP once the model is up, print the answer and stop (repeatable)")
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Serve a model with an OpenAI-compatible endpoint and a chat page.

    Example: `fournil serve demo --port 8000`
    """
    from fournil.endpoint import serve_target

    serve_target(target, storage, port=port, host=host, questions=ask or [], say=_say)


@app.command()
def chat(
    url: Annotated[str, typer.Argument(help="endpoint of `fournil serve`")] = "http://127.0.0.1:8000",
    max_tokens: Annotated[int, typer.Option(min=1)] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, max=2.0)] = 0.0,
) -> None:
    """Talk to a served model in the terminal.

    Example: `fournil chat http://127.0.0.1:8000`
    """
    from serving.client import chat_loop

    chat_loop(url, max_tokens=max_tokens, temperature=temperature)


@app.command(name="eval")
def evaluate(
    target: Annotated[str, typer.Argument(metavar="RUN|FOLDER|URL", help="a run, a model folder or an endpoint")],
    suite: Annotated[str | None, typer.Option(help="full, quick, or one of bits_per_byte, minimal_pairs, translation, answers")] = None,
    data: Annotated[str | None, typer.Option(help="run whose held-out documents are read, for a FOLDER or URL")] = None,
    address: Annotated[str, typer.Option(help="`local`, `auto` or ray://HEAD:10001")] = "local",
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the evaluation suite as a Ray job and print every metric with its interval and chance level.

    Example: `fournil eval demo --suite bits_per_byte`
    """
    from cluster.progress import Reporter
    from fournil.endpoint import evaluate_target

    rows = evaluate_target(target, suite, data, address, storage, Reporter(Console(stderr=True, highlight=False, soft_wrap=True)))
    _print_rows(rows, as_json, empty="nothing was measured")


def _say(line: str) -> None:
    console.print(line, markup=False)


def _print(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False, indent=1, default=str))
        return
    for key, value in values.items():
        if isinstance(value, dict):
            _say(f"{key}:")
            for inner, text in value.items():
                _say(f"  {inner:<28} {text}")
        elif isinstance(value, list):
            _say(f"{key}:")
            for text in value:
                _say(f"  {text}")
        elif value is not None:
            _say(f"{key:<30} {value}")


def _print_rows(rows: list[dict[str, Any]], as_json: bool, empty: str) -> None:
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1, default=str))
        return
    if not rows:
        _say(empty)
        return
    table = Table(box=None, pad_edge=False)
    for key in rows[0]:
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)


def main() -> NoReturn:
    """Entry point: errors are one line on stderr; exit 0 done, 1 the work failed, 2 the request was wrong."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        app()
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on where it was", 1)
    except FournilError as error:
        _fail(str(error), error.exit_code)
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"fournil: {message}", markup=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
