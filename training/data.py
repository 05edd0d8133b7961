"""Which tokens the model sees at which step: a pure function of the seed and the step.

    token shards -> rows of seq_len -> each source as often as its ratio says (`training/order.py`) -> step -> worker

Row i of a source holds the targets `i * seq_len ... (i + 1) * seq_len - 1` of its shards laid end to end; the inputs are
the tokens one place earlier, with `<|endoftext|>` before the first. So every token is a target exactly once, and the last
row is short. Nothing depends on the number of workers, and nothing is kept between steps, so a run resumes at any step.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from cluster.artifacts import canonical_json
from cluster.errors import RequestError, WorkError
from cluster.storage import Folder
from training.config import LoopConfig
from training.order import EMPTY_ROW, Order

if TYPE_CHECKING:
    from training.objectives import Objective

IGNORE = -100
SAMPLED_BYTES = 4096
OPEN_SHARDS = 512


class Batch(NamedTuple):
    """Arrays [rows, seq_len]: input ids, the ids to predict (`IGNORE` where nothing is learnt), document numbers or None,
    the loss's weight of each target (fp32) or None; `extra` is what one objective alone reads, by name, rows first."""

    tokens: np.ndarray
    targets: np.ndarray
    segments: np.ndarray | None
    weights: np.ndarray | None = None
    extra: Mapping[str, np.ndarray] = MappingProxyType({})


class Rows(Protocol):
    """A store of training rows by number; `EMPTY_ROW` is a row without targets, which fills up a batch."""

    seq_len: int

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> Batch: ...


@dataclass(frozen=True)
class HeldOut:
    """Rows never trained on; `bytes` is the UTF-8 size of their text, None where no bits a byte are wanted.

    `objective` (None: the text's cross-entropy) is read over all rows and divided by what it counts, which gives `unit`.
    """

    rows: Rows
    bytes: int | None
    objective: Objective | None = None
    unit: str = "nats_per_token"


@dataclass(frozen=True)
class TrainingData:
    """All that the loop reads. `quick` are the small held-out readings during the run, `heldout` the whole."""

    rows: Rows
    order: Order
    quick: dict[str, HeldOut]
    heldout: dict[str, HeldOut]
    fingerprint: DataFingerprint

    def seen(self, step: int, shifts: Sequence[tuple[int, int]] = ()) -> dict[str, dict[str, float]]:
        """What the steps before `step` hold of each source (`seen_by_source`), where the rows come from named sources."""
        return seen_by_source(self.rows, self.order, step, shifts) if isinstance(self.rows, TokenRows) else {}


@dataclass(frozen=True)
class DataFingerprint:
    """What must be equal for step s to mean the same rows; kept in checkpoints and compared on resume."""

    content: str
    seq_len: int
    batch_rows: int
    total_rows: int
    seed: int

    def check(self, saved: dict[str, Any]) -> None:
        """A `WorkError` that names what differs from the fingerprint `saved` in a checkpoint."""
        mine = asdict(self)
        different = [f"{key} {saved.get(key)} -> {mine[key]}" for key in mine if saved.get(key) != mine[key]]
        if different:
            raise WorkError(
                f"the checkpoint was trained on other data ({', '.join(different)}); delete the unfinished artifact to start over"
            )


# --- from documents' tokens to rows ---


def open_tokens(
    folder: Folder,
    settings: LoopConfig,
    *,
    ratios: Mapping[str, float] | None = None,
    added: Folder | None = None,
    cache: Path | None = None,
) -> TrainingData:
    """The training data of a `tokens` artifact: see `pipelines/tokens.py` for its files.

    `ratios` by source replaces those of the index (sources it does not name are left out); `added` is a folder of further
    sources, with an `index.json` of the same form.
    """
    index = folder.read_json("index.json")
    streams = sorted(index["heldout"].items())
    sidecars = [entry["path"].removesuffix(".bin") + suffix for _, entry in streams for suffix in (".idx.npy", ".bytes.npy")]
    index, root = _located(folder, index, [*(entry["path"] for _, entry in streams), *sidecars], cache)
    if added is not None:
        more, _ = _located(added, added.read_json("index.json"), [], cache)
        index["sources"] |= more["sources"]
    rows, order = token_order(index, settings, ratios)

    def token_rows(stream: str, entry: dict[str, Any]) -> TokenRows:
        return TokenRows({stream: _token_files([{**entry, "path": str(root / entry["path"])}], index)}, settings)

    heldout = {stream: HeldOut(token_rows(stream, entry), entry["bytes"]) for stream, entry in streams if entry["tokens"]}
    quick = {}
    for stream, entry in streams:
        if entry["tokens"]:
            kept, text_bytes = _heldout_prefix(root / entry["path"], settings.eval_tokens)
            quick[stream] = HeldOut(token_rows(stream, {**entry, "tokens": kept}), text_bytes)
    shards = [shard for name in rows.names for shard in index["sources"][name]["shards"]]
    named = [[name, in_pass, files.sizes] for (name, files), in_pass in zip(rows.sources.items(), order.in_pass, strict=True)]
    content = content_hash([index["dtype"], index["vocab_size"], named], [Path(shard["path"]) for shard in shards])
    fingerprint = DataFingerprint(content, settings.seq_len, order.batch_rows, order.total_rows, settings.seed)
    return TrainingData(rows, order, quick, heldout, fingerprint)


def token_order(index: dict[str, Any], settings: LoopConfig, ratios: Mapping[str, float] | None = None) -> tuple[TokenRows, Order]:
    """The rows and the order that an index and settings make, without opening a shard."""
    sources = dict(sorted(index["sources"].items()))
    if ratios is not None:
        missing = [name for name, ratio in ratios.items() if ratio > 0 and name not in sources]
        if missing:
            raise WorkError(f"the tokens have no source {', '.join(missing)}; give it a ratio under mix or mix.annealing and bake again")
        sources = {name: {**source, "ratio": ratios.get(name, 0.0)} for name, source in sources.items()}
    rows = TokenRows({name: _token_files(source["shards"], index) for name, source in sources.items()}, settings)
    total = None if settings.tokens is None else math.ceil(settings.tokens / settings.seq_len)
    wanted = [source["ratio"] for source in sources.values()]
    return rows, Order(rows.counts, wanted, settings.batch_tokens // settings.seq_len, settings.seed, total)


def seen_by_source(
    rows: TokenRows, order: Order, step: int | None = None, shifts: Sequence[tuple[int, int]] = ()
) -> dict[str, dict[str, float]]:
    """Rows, tokens and epochs of each source in the steps before `step` (None: in the whole run); exact, and reads nothing.

    With a shift (first, steps) the rows from step `first` on are those of `steps` steps later.
    """
    stop = order.steps if step is None else step
    edges = sorted({0, stop, *(first for first, _ in shifts if first < stop)})
    found: dict[str, dict[str, float]] = {}
    for start, end in pairwise(edges):
        skipped = sum(steps for first, steps in shifts if first <= start)
        places = zip(rows.names, order.seen(start, skipped), order.seen(end, skipped), strict=True)
        for place, (name, before, after) in enumerate(places):
            if after > before:
                entry = found.setdefault(name, {"rows": 0, "tokens": 0})
                lasts = order.times(place, rows.counts[place] - 1, after) - order.times(place, rows.counts[place] - 1, before)
                entry["rows"] += after - before
                entry["tokens"] += (after - before) * rows.seq_len - lasts * (-len(rows.sources[name]) % rows.seq_len)
    return {name: {**entry, "epochs": round(entry["tokens"] / len(rows.sources[name]), 4)} for name, entry in sorted(found.items())}


def _located(folder: Folder, index: dict[str, Any], names: list[str], cache: Path | None) -> tuple[dict[str, Any], Path]:
    """The index with the paths of its shards made local ones, and the local folder, which has the files `names` too."""
    shards = [shard["path"] for source in index["sources"].values() for shard in source["shards"]]
    root = local_copy(folder, shards + names, cache)
    sources = {
        name: {**source, "shards": [{**shard, "path": str(root / shard["path"])} for shard in source["shards"]]}
        for name, source in index["sources"].items()
    }
    return {**index, "sources": sources}, root


def _token_files(shards: list[dict[str, Any]], index: dict[str, Any]) -> TokenFiles:
    dtype = np.dtype(index["dtype"]).newbyteorder("<").str
    return TokenFiles([(shard["path"], shard["tokens"]) for shard in shards], dtype, index["eos"])


def _heldout_prefix(path: Path, tokens: int) -> tuple[int, int]:
    """Tokens and text bytes of the first whole documents that fit in `tokens` (one at least)."""
    stem = str(path).removesuffix(".bin")
    ends, sizes = np.load(f"{stem}.idx.npy"), np.load(f"{stem}.bytes.npy")
    documents = max(1, int(np.searchsorted(ends, tokens, side="right")))
    return int(ends[documents - 1]), int(sizes[:documents].sum())


def local_copy(folder: Folder, names: Sequence[str], cache: Path | None = None) -> Path:
    """A local folder with these files: the folder itself where it is local or mounted, else a copy kept in `cache`.

    The workers of one host share the copy: each file is fetched by the first that locks it. It stays until it is deleted.
    """
    if folder.is_local:
        return folder.local_path()
    root = (cache or Path(tempfile.gettempdir()) / "fournil-cache") / hashlib.sha256(folder.url.encode()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    missing = sum(size for name in names if not _is_there(root / name, size := folder.size(name)))
    if missing > (free := shutil.disk_usage(root).free):
        raise RequestError(
            f"a local copy of {folder.url} takes {missing / 1e9:.1f} GB more and {root} has {free / 1e9:.1f}: "
            "delete old copies there, set TMPDIR to a larger disk, or mount the storage"
        )
    for name in names:
        target, size = root / name, folder.size(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.with_name(f".lock-{target.name}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_there(target, size):
                part = target.with_name(f".part-{target.name}")
                with part.open("wb") as copy, folder.filesystem.open_input_stream(folder.at(name), compression=None) as source:
                    shutil.copyfileobj(source, copy, 1 << 22)
                part.replace(target)
    return root


def _is_there(file: Path, size: int) -> bool:
    return file.exists() and file.stat().st_size == size


def content_hash(meaning: Any, files: Sequence[Path]) -> str:
    """SHA-256 of `meaning` and of each file's size, first and last bytes: enough to notice exchanged data in seconds."""
    digest = hashlib.sha256(canonical_json(meaning).encode())
    for path in files:
        size = path.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with path.open("rb") as source:
            digest.update(source.read(SAMPLED_BYTES))
            source.seek(max(0, size - SAMPLED_BYTES))
            digest.update(source.read())
    return digest.hexdigest()


class TokenFiles:
    """Token files laid end to end. `files` are (path, tokens)."""

    def __init__(self, files: list[tuple[str, int]], dtype: str, eos: int) -> None:
        self.files, self.dtype, self.eos = files, dtype, eos
        self._starts = np.concatenate([[0], np.cumsum([tokens for _, tokens in files])]).astype(np.int64)

    @property
    def sizes(self) -> list[int]:
        """Tokens of each file."""
        return [tokens for _, tokens in self.files]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens `start ... stop - 1`; place -1 holds `<|endoftext|>`."""
        starts = self._starts
        pieces = [np.array([self.eos], dtype=self.dtype)] if start < 0 else []
        place = max(0, start)
        shard = int(np.searchsorted(starts, place, side="right")) - 1
        while place < stop:
            path, tokens = self.files[shard]
            end = min(stop, int(starts[shard + 1]))
            if end > place:
                pieces.append(_open_shard(path, self.dtype, tokens)[place - starts[shard] : end - starts[shard]])
            place, shard = max(place, end), shard + 1
        return np.concatenate(pieces)


@lru_cache(maxsize=OPEN_SHARDS)
def _open_shard(path: str, dtype: str, tokens: int) -> np.ndarray:
    return np.memmap(path, dtype=dtype, mode="r", shape=(tokens,))


class TokenRows:
    """Rows over several sources by name, numbered source after source; `counts` has the rows of each.

    With `settings.mask_documents` a row's segments count the documents begun in it: an input `<|endoftext|>` begins one.
    """

    def __init__(self, sources: dict[str, TokenFiles], settings: LoopConfig) -> None:
        self.sources, self.names, self.seq_len, self.mask_documents = sources, list(sources), settings.seq_len, settings.mask_documents
        seq_len = self.seq_len
        self._files = list(sources.values())
        self.counts = [math.ceil(len(source) / seq_len) for source in self._files]
        self._starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: np.ndarray) -> Batch:
        tokens = np.zeros((len(rows), self.seq_len), np.int64)
        targets = np.full((len(rows), self.seq_len), IGNORE, np.int64)
        for place, row in enumerate(rows.tolist()):
            if row == EMPTY_ROW:
                continue
            source = int(np.searchsorted(self._starts, row, side="right")) - 1
            start = (row - int(self._starts[source])) * self.seq_len
            window = self._files[source].read(start - 1, min(start + self.seq_len, len(self._files[source])))
            tokens[place, : len(window) - 1] = window[:-1]
            targets[place, : len(window) - 1] = window[1:]
        segments = np.cumsum(tokens == self._files[0].eos, axis=1) if self.mask_documents else None
        return Batch(tokens, targets, segments)
