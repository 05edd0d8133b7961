"""Commands that make something of a recipe, and those that plan, measure, serve or ask what was made."""

from __future__ import annotations

from typing import Annotated

import typer

from fournil.terminal import (
    ClusterOption,
    JsonOption,
    RecipeArgument,
    SetOption,
    StorageOption,
    UntilOption,
    console,
    errors_console,
    print_rows,
    print_values,
    say,
)


def bake(
    recipe: RecipeArgument,
    until: UntilOption = None,
    set_: SetOption = None,
    storage: StorageOption = None,
    address: ClusterOption = "local",
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
    job = jobs.submit(address, recipe.read_text(encoding="utf-8"), checked.name, str(open_storage(storage)), extra, say)
    if detach:
        say(f"follow it with `fournil logs {job} --address {address} --follow`")
        return
    if jobs.follow(address, job, say) in ("RUNNING", "PENDING"):
        return
    jobs.check_job(jobs.describe_job(address, job), address)
    say(f"job {job}: done")


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
    print_values(describe_plan(checked, open_storage(storage), sites, numbers=as_json), as_json)


def scale(
    recipe: RecipeArgument,
    at_once: Annotated[int | None, typer.Option(min=1, help="trials that run together; as many as there are cores by default")] = None,
    set_: SetOption = None,
    storage: StorageOption = None,
    address: ClusterOption = "local",
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

    reporter = Reporter(errors_console())
    report = scale_recipe(load_recipe(recipe, set_ or ()), open_storage(storage), address=address, at_once=at_once, reporter=reporter)
    print_values(report if as_json else describe_report(report), as_json)


def tokenizer(
    recipe: RecipeArgument,
    sizes: Annotated[str | None, typer.Option(help="vocabulary sizes with commas between; the recipe's by default")] = None,
    set_: SetOption = None,
    storage: StorageOption = None,
    address: ClusterOption = "local",
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

    reporter = Reporter(errors_console())
    report = sweep_recipe(load_recipe(recipe, set_ or ()), open_storage(storage), sizes, address=address, reporter=reporter)
    if as_json:
        print_values(report, as_json)
        return
    for title, rows in sweep_tables(report).items():
        say(f"{title}:")
        print_rows(rows, as_json, empty="nothing was measured")
        say("")
    for line in [*(f"note: {warning}" for warning in report["warnings"]), *report["files"]]:
        say(line)


def glitch(
    target: Annotated[str, typer.Argument(metavar="RUN|FOLDER", help="a run, or a folder with a Hugging Face model of a run")],
    stage: Annotated[str, typer.Option(help="the run's model after this stage: pretrain, anneal, sft or dpo")] = "pretrain",
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="share of the vocabulary to flag")] = 0.02,
    seen_below: Annotated[int, typer.Option(min=1, help="what counts as hardly seen in training")] = 10,
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
        print_values(report, as_json)
        return
    print_rows([{**row, "token": repr(row["token"])} for row in report["worst"]], as_json, empty="no token asked for")
    for line in scan_lines(report):
        say(line)


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

    serve_target(target, storage, port=port, host=host, questions=ask or [], say=say)


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

    rows = evaluate_target(target, suite, data, address, storage, Reporter(errors_console()))
    print_rows(rows, as_json, empty="nothing was measured")
