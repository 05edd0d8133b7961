"""Which documents each model of the survey is fitted on: random samples of bounded size, the same on any layout of parts.

Ids are hashes, so the documents whose id lies below a bound are a random sample. The bound of a group follows from a
histogram of its bytes by id (`BINS` bins, at least one of which is read): with 16 TB of text a bin is 16 MB.

Models that could learn a document by heart are fitted twice, on the two halves (`folds`) of their sample, and a document is
scored by the model of the other half. So no document is scored by a model that has read it, and scores of the
sources a model was fitted on compare with all others.
"""

# pyarrow.compute makes its functions at run time, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.storage import Folder
from pipelines.models.config import SurveyConfig
from pipelines.parts import read_batches

PERPLEXITY, DISTRIBUTION, POSITIVE, NEGATIVE, ADEQUACY = "perplexity", "distribution", "positive", "negative", "adequacy"
FOLDS = (0, 1)
BIN_DIGITS = 5
BINS = 16**BIN_DIGITS
MB = 10**6

SAMPLE = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("translation", pa.large_string())])
TALLY = pa.schema([("group", pa.string()), ("bin", pa.int32()), ("bytes", pa.int64())])


def id_bins(ids: Sequence[str]) -> np.ndarray:
    """int64[n]: the bin of each id."""
    return np.array([int(id[:BIN_DIGITS], 16) for id in ids], np.int64)


def folds(ids: Sequence[str]) -> np.ndarray:
    """int64[n] of 0 and 1: the half that each document belongs to, by the last digit of its id."""
    return np.array([int(id[-1], 16) & 1 for id in ids], np.int64)


def groups(batch: pa.Table, config: SurveyConfig) -> dict[str, np.ndarray]:
    """Which documents (bool[n]) may be read for which model, by `<model>-<language>`; only groups that have some."""
    sources, families, langs, others = (
        np.array(batch[name].to_pylist(), object) for name in ("source", "family", "lang", "translation_lang")
    )
    parallel = pc.is_valid(batch["translation"]).to_numpy()
    found: dict[str, np.ndarray] = {}
    for lang in sorted({lang for lang in langs if lang and lang != "code"}):
        mine = (langs == lang) & ~parallel
        named = config.perplexity.sources.get(lang)
        clean = np.isin(families, config.perplexity.families) if named is None else np.isin(sources, named)
        sides = config.classifier.languages.get(lang)
        found[f"{PERPLEXITY}-{lang}"] = mine & clean & config.perplexity.enabled
        found[f"{DISTRIBUTION}-{lang}"] = mine & config.distribution.enabled
        if sides is not None:
            found[f"{POSITIVE}-{lang}"] = mine & np.isin(sources, sides.positive)
            found[f"{NEGATIVE}-{lang}"] = mine & np.isin(sources, sides.negative)
        for other in sorted({other for other in others[(langs == lang) & parallel] if other}):
            pairs = parallel & (langs == lang) & (others == other)
            found[f"{ADEQUACY}-{pair_name(lang, other)}"] = pairs & config.adequacy.enabled
    return {name: where for name, where in found.items() if where.any()}


def pair_name(lang: str, other: str) -> str:
    """The name of a pair of languages in that order."""
    return f"{lang}-{other}"


def budgets(config: SurveyConfig) -> dict[str, int]:
    """Bytes of text to read by model."""
    classifier = int(config.classifier.max_mb * MB)
    return {
        PERPLEXITY: int(config.perplexity.max_mb * MB),
        DISTRIBUTION: int(config.distribution.max_mb * MB),
        POSITIVE: classifier,
        NEGATIVE: classifier,
        ADEQUACY: int(config.adequacy.max_mb * MB),
    }


def tally(batch: pa.Table, config: SurveyConfig) -> pa.Table:
    """`TALLY` of some documents: bytes of both sides by group and bin of ids."""
    sizes = np.zeros(batch.num_rows, np.int64)
    for side in ("text", "translation"):
        sizes += pc.fill_null(pc.binary_length(batch[side]), 0).to_numpy()
    bins = id_bins(batch["id"].to_pylist()).astype(np.int32)
    tables = [
        pa.table([pa.array([name] * int(where.sum())), bins[where], sizes[where]], schema=TALLY)
        for name, where in groups(batch, config).items()
    ]
    return pa.concat_tables(tables) if tables else TALLY.empty_table()


def merge(tallies: Iterable[pa.Table], config: SurveyConfig) -> pa.Table:
    """One tally of several, sorted, without the bins that lie past their group's budget already: whatever other tallies hold,
    those are not read. So a tally of any number of documents has no more rows than a sample has documents."""
    rows = pa.concat_tables([TALLY.empty_table(), *tallies]).group_by(["group", "bin"]).aggregate([("bytes", "sum")])
    rows = rows.sort_by([("group", "ascending"), ("bin", "ascending")]).rename_columns(TALLY.names)
    groups = np.array(rows["group"].to_pylist(), object)
    sizes = rows["bytes"].to_numpy()
    before = np.cumsum(sizes) - sizes
    first = np.concatenate([[True], groups[1:] != groups[:-1]]) if len(groups) else np.zeros(0, bool)
    before = before - before[np.flatnonzero(first)][np.cumsum(first) - 1]
    limits = budgets(config)
    return rows.filter(pa.array(before <= [limits[name.split("-")[0]] for name in groups]))


def bounds(rows: pa.Table, config: SurveyConfig) -> dict[str, int]:
    """For each group of a merged tally the first bin that is not read: the bins before hold at most the model's budget, or
    are one."""
    limits = budgets(config)
    found = {}
    for name in rows["group"].unique().to_pylist():
        mine = rows.filter(pc.equal(rows["group"], name))
        bins, total = mine["bin"].to_numpy(), np.cumsum(mine["bytes"].to_numpy())
        past = int(np.searchsorted(total, limits[name.split("-")[0]], side="right"))
        found[name] = BINS if past == len(bins) else int(bins[past]) if past else int(bins[0]) + 1
    return found


def sample(batch: pa.Table, config: SurveyConfig, bound_by_group: Mapping[str, int]) -> dict[str, pa.Table]:
    """`SAMPLE` rows of some documents by group."""
    bins = id_bins(batch["id"].to_pylist())
    chosen = {name: where & (bins < bound_by_group[name]) for name, where in groups(batch, config).items()}
    return {name: batch.select(SAMPLE.names).filter(pa.array(where)).cast(SAMPLE) for name, where in chosen.items() if where.any()}


def stream_sample(folder: Folder, under: str, parts: Sequence[str], half: int | None = None) -> Iterator[pa.Table]:
    """A group's sample from those parts, or a half of it, a row group at a time in the parts' order, without copies."""
    seen: set[str] = set()
    for part in parts:
        for rows in read_batches(folder, f"{under}/{part}.parquet"):
            ids = rows["id"].to_pylist()
            new = [id not in seen and not seen.add(id) for id in ids]
            mine = new if half is None else np.array(new, bool) & (folds(ids) == half)
            yield rows.filter(pa.array(mine)).combine_chunks()


def read_sample(folder: Folder, under: str, parts: Sequence[str], half: int | None = None) -> pa.Table:
    """All of that by id: bounded by the group's budget."""
    rows = pa.concat_tables([SAMPLE.empty_table(), *stream_sample(folder, under, parts, half)])
    return rows.sort_by([("id", "ascending")]).combine_chunks()
