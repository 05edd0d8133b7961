"""The whole recipe: one YAML file that holds everything that changes the result.

Each package defines its own sections; this module composes them and turns every mistake into one line that names
the file's line, the key and, for an unknown key, the nearest right one.
"""

from __future__ import annotations

import difflib
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from cluster.config import Section
from cluster.errors import RequestError
from cluster.stage import Resources
from evaluation.config import EvalConfig, ReportConfig
from pipelines.config import CleanConfig, InstructionsConfig, MixConfig
from pipelines.models.config import SurveyConfig
from pipelines.sources.config import ExtractOptions, SourceConfig
from serving.config import ServeConfig
from training.config import (
    AnnealConfig,
    DpoConfig,
    ModelConfig,
    PreferencesConfig,
    PretrainConfig,
    ScaleConfig,
    SftConfig,
    TokenizerConfig,
    WatchConfig,
)
from training.schedule import learning_rate

ELASTIC_STAGES = ("pretrain", "anneal", "sft", "dpo")
"""Stages whose work may move to another number of workers on the way."""


class StageResources(Section):
    """What one stage asks of Ray. Never changes the result, so it is not part of any artifact's hash."""

    workers: int | tuple[int, int] = Field(default=1, description="a number; or [fewest, most] for a stage that trains")
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: float = Field(default=0, ge=0)

    @field_validator("workers", mode="plain")
    @classmethod
    def _range(cls, value: Any) -> int | tuple[int, int]:
        pair = value if isinstance(value, list | tuple) else (value, value)
        if len(pair) != 2 or any(type(number) is not int for number in pair) or not 1 <= pair[0] <= pair[1]:
            raise ValueError("workers is a number from 1, or [fewest, most]")
        return pair[1] if pair[0] == pair[1] else (pair[0], pair[1])

    def to_ask(self) -> Resources:
        """The same as stages take it."""
        fewest, most = (None, self.workers) if isinstance(self.workers, int) else self.workers
        return Resources(most, self.cpus_per_worker, self.gpus_per_worker, fewest)


class Recipe(Section):
    """Everything a bake needs to know."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="the run's name, unless --run gives another")
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    extract: ExtractOptions = ExtractOptions()
    survey: SurveyConfig = SurveyConfig()
    clean: CleanConfig = CleanConfig()
    mix: MixConfig = MixConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    instructions: InstructionsConfig = InstructionsConfig()
    anneal: AnnealConfig | None = None
    sft: SftConfig = SftConfig()
    preferences: PreferencesConfig = PreferencesConfig()
    dpo: DpoConfig | None = None
    eval: EvalConfig = EvalConfig()
    report: ReportConfig = ReportConfig()
    serve: ServeConfig = ServeConfig()
    scale: ScaleConfig = ScaleConfig()
    watch: WatchConfig = WatchConfig()
    resources: dict[str, StageResources] = {}

    @model_validator(mode="after")
    def _only_training_is_elastic(self) -> Recipe:
        for stage, asked in self.resources.items():
            if asked.to_ask().min_workers and stage not in ELASTIC_STAGES:
                raise ValueError(f"resources.{stage}.workers must be one number; [fewest, most] is for {', '.join(ELASTIC_STAGES)}")
        return self

    @model_validator(mode="after")
    def _survey_fits(self) -> Recipe:
        """Sources that the survey names exist in the language it names them for, and cuts have a model to cut by."""
        langs = {source.name: source.lang for source in self.sources}
        for key, lang, names in self.survey.named_sources():
            for name in names:
                _check_source(key, name, list(langs))
                if lang is not None and langs[name] != lang:
                    raise ValueError(f"{key} names {name!r}, whose lang is {langs[name]!r}")
        for lang, thresholds in self.clean.languages.items():
            for cut, there in self.survey.models_of(lang).items():
                if getattr(thresholds, cut).enabled and not there:
                    raise ValueError(f"clean.languages.{lang}.{cut} is on, but the section survey has no model for it")
        return self

    @model_validator(mode="after")
    def _weighted_sources(self) -> Recipe:
        for name in self.sft.source_weights:
            _check_source("sft.source_weights", name, [source.name for source in self.sources])
        return self

    @model_validator(mode="after")
    def _anneal_cools_down(self) -> Recipe:
        """Annealing is the cool-down: pretraining before it must end at its full rate."""
        steps, optim = 1_000_000, self.pretrain.optim
        if self.anneal and learning_rate(steps - 1, steps, optim) < optim.learning_rate:
            raise ValueError("anneal cools the learning rate down itself; set pretrain.optim: {schedule: wsd, decay_ratio: 0}")
        return self


def _check_source(key: str, name: str, sources: list[str]) -> None:
    if name not in sources:
        near = difflib.get_close_matches(name, sources, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"sources: {', '.join(sources)}"
        raise ValueError(f"{key} names {name!r}, which is no source of this recipe; {hint}")


def load_recipe(path: str | Path, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; `overrides` are `key.path=value` with YAML values. Any mistake is a `RequestError`."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(
            f"recipe {path} cannot be read ({error.strerror}); give the path of a YAML recipe such as recipes/demo.yaml"
        ) from None
    except UnicodeDecodeError:
        raise RequestError(f"recipe {path} is not UTF-8 text") from None
    return parse_recipe(text, str(path), overrides)


def parse_recipe(text: str, origin: str = "recipe", overrides: typing.Sequence[str] = ()) -> Recipe:
    """Like `load_recipe`, from the text itself."""
    try:
        data, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise RequestError(f"{origin}{where}: not valid YAML ({reason})") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{origin}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(data, dict):
        raise RequestError(f"{origin}: a recipe is a mapping of sections, like recipes/demo.yaml")
    for override in overrides:
        _apply_override(data, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RequestError(_explain(error, tree, origin)) from None


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise RequestError(f"--set {override}: write it as key=value, for example --set pretrain.seq_len=512")
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        raise RequestError(f"--set {override}: the value is not valid YAML") from None
    *parents, last = key.split(".")
    place: Any = data
    for part in parents:
        if isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, dict):
            if not isinstance(place.get(part), dict | list):
                place[part] = {}
            place = place[part]
        else:
            raise RequestError(f"--set {override}: there is no {part!r} to set {last!r} in")
    if isinstance(place, list):
        if not last.isdigit() or int(last) >= len(place):
            raise RequestError(f"--set {override}: {'.'.join(parents)} has items 0 to {len(place) - 1}")
        place[int(last)] = parsed
    else:
        place[last] = parsed


def _explain(error: ValidationError, tree: yaml.Node | None, origin: str) -> str:
    """One line for the first problem, and how many more there are."""
    problems = error.errors()
    first = problems[0]
    line, written = _locate(tree, first["loc"])
    where = f"{origin} line {line}" if line else origin
    key = ".".join(str(part) for part in written)
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(Recipe, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{where}: unknown key {key!r}; {hint}{more}"
    if first["type"] == "missing":
        return f"{where}: {key!r} is missing; add it{more}"
    got = f" (got {first['input']!r})" if isinstance(first["input"], str | int | float | bool) else ""
    return f"{where}: {f'{key}: ' if key else ''}{_plain(first)}{got}{more}"


def _plain(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    return message[0].lower() + message[1:]


def _locate(tree: yaml.Node | None, loc: tuple[Any, ...]) -> tuple[int | None, list[Any]]:
    """The line of `loc` in the file (of its nearest parent that is written there), and `loc` without union tags."""
    node, line, written = tree, None, []
    for position, part in enumerate(loc):
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if entry is not None:
                line, node = entry[0].start_mark.line + 1, entry[1]
            elif position < len(loc) - 1:
                continue  # the tag pydantic adds for the chosen reader; it is not written in the file
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        written.append(part)
    return line, written


def _keys_at(model: Any, loc: tuple[Any, ...]) -> list[str]:
    """The keys that the section at `loc` takes."""
    place: Any = model
    for part in loc:
        place = _step(place, part)
    place = _strip(place)
    return sorted(place.model_fields) if isinstance(place, type) and issubclass(place, BaseModel) else []


def _strip(annotation: Any) -> Any:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    members = [member for member in get_args(annotation) if member is not type(None)]
    return members[0] if get_origin(annotation) is types.UnionType and len(members) == 1 else annotation


def _step(annotation: Any, part: Any) -> Any:
    annotation = _strip(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return field.annotation if field else annotation
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (tuple, list):
        return arguments[0]
    if origin is dict:
        return arguments[1]
    if origin in (Union, types.UnionType):
        for member in map(_strip, arguments):
            if isinstance(member, type) and issubclass(member, BaseModel) and _has_tag(member, part):
                return member
        return next((member for member in arguments if member is not type(None)), annotation)
    return annotation


def _has_tag(model: type[BaseModel], tag: Any) -> bool:
    return any(get_origin(field.annotation) is Literal and tag in get_args(field.annotation) for field in model.model_fields.values())
