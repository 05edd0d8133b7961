"""Which tokens the model sees at which step: a pure function of the seed and the step.

    token shards -> rows of seq_len -> each source as often as its ratio says -> permutation(seed, pass) -> step -> worker

Row i of a source holds the targets `i * seq_len ... (i + 1) * seq_len - 1` of its shards laid end to end; the inputs are
the tokens one place earlier, with `<|endoftext|>` before the first. So every token is a target exactly once, and the last
row is short. Nothing depends on the number of workers, and nothing is kept between steps, so a run resumes at any step.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from cluster.artifacts import canonical_json
from cluster.errors import WorkError
from cluster.storage import Folder

IGNORE = -100
EMPTY_ROW = -1
FEISTEL_ROUNDS = 8
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

    def valid(self, rows: np.ndarray) -> float:
        """What the objective's sum over these rows is divided by (their targets, or the targets' weights), without reading them."""
        ...


@dataclass(frozen=True)
class HeldOut:
    """Rows never trained on; `bytes` is the UTF-8 size of their text, None where only nats a token are wanted."""

    rows: Rows
    bytes: int | None


@dataclass(frozen=True)
class TrainingData:
    """All that the loop reads. `quick` are the small held-out readings during the run, `heldout` the whole."""

    rows: Rows
    order: Order
    quick: dict[str, HeldOut]
    heldout: dict[str, HeldOut]
    fingerprint: DataFingerprint


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
    folder: Folder, *, seq_len: int, batch_tokens: int, tokens: int | None, seed: int, quick_tokens: int, cache: Path | None = None
) -> TrainingData:
    """The training data of a `tokens` artifact: see `pipelines/tokens.py` for its files."""
    index = folder.read_json("index.json")
    sources = [source for _, source in sorted(index["sources"].items())]
    shards = [shard for source in sources for shard in source["shards"]]
    streams = sorted(index["heldout"].items())
    names = [shard["path"] for shard in shards] + [entry["path"] for _, entry in streams]
    sidecars = [f"{name.removesuffix('.bin')}{suffix}" for name in names[len(shards) :] for suffix in (".idx.npy", ".bytes.npy")]
    root = local_copy(folder, names + sidecars, cache)
    dtype = np.dtype(index["dtype"]).newbyteorder("<")

    def token_rows(entries: list[list[dict[str, Any]]]) -> TokenRows:
        files = [[(str(root / shard["path"]), shard["tokens"]) for shard in group] for group in entries]
        return TokenRows([TokenFiles(group, dtype.str, index["eos"]) for group in files], seq_len)

    rows = token_rows([source["shards"] for source in sources])
    order = Order(
        rows.counts, [source["ratio"] for source in sources], batch_tokens // seq_len, seed, tokens and math.ceil(tokens / seq_len)
    )
    heldout = {stream: HeldOut(token_rows([[entry]]), entry["bytes"]) for stream, entry in streams if entry["tokens"]}
    quick = {}
    for stream, entry in streams:
        if entry["tokens"]:
            kept, text_bytes = _heldout_prefix(root / entry["path"], quick_tokens)
            quick[stream] = HeldOut(token_rows([[{**entry, "tokens": kept}]]), text_bytes)
    meaning = [index["dtype"], index["vocab_size"], [[source["ratio"], source["shards"]] for source in sources]]
    content = content_hash(meaning, [root / shard["path"] for shard in shards])
    fingerprint = DataFingerprint(content, seq_len, order.batch_rows, order.total_rows, seed)
    return TrainingData(rows, order, quick, heldout, fingerprint)


def _heldout_prefix(path: Path, tokens: int) -> tuple[int, int]:
    """Tokens and text bytes of the first whole documents that fit in `tokens` (one at least)."""
    stem = str(path).removesuffix(".bin")
    ends, sizes = np.load(f"{stem}.idx.npy"), np.load(f"{stem}.bytes.npy")
    documents = max(1, int(np.searchsorted(ends, tokens, side="right")))
    return int(ends[documents - 1]), int(sizes[:documents].sum())


def local_copy(folder: Folder, names: Sequence[str], cache: Path | None = None) -> Path:
    """A local folder with these files: the folder itself where it is local or mounted, else a copy kept in `cache`."""
    if folder.is_local:
        return folder.local_path()
    root = (cache or Path(tempfile.gettempdir()) / "fournil-cache") / hashlib.sha256(folder.url.encode()).hexdigest()[:16]
    for name in names:
        target = root / name
        if target.exists() and target.stat().st_size == folder.size(name):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.NamedTemporaryFile(dir=target.parent, prefix=".tmp-", delete=False) as copy,
            folder.filesystem.open_input_stream(folder.at(name), compression=None) as source,
        ):
            shutil.copyfileobj(source, copy, 1 << 22)
        Path(copy.name).replace(target)
    return root


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
    """Rows over several sources, numbered source after source; `counts` has the rows of each."""

    def __init__(self, sources: list[TokenFiles], seq_len: int) -> None:
        self.sources, self.seq_len = sources, seq_len
        self.counts = [math.ceil(len(source) / seq_len) for source in sources]
        self._starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        self._last_rows = {int(self._starts[i + 1]) - 1: len(s) - (self.counts[i] - 1) * seq_len for i, s in enumerate(sources) if len(s)}

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
            window = self.sources[source].read(start - 1, min(start + self.seq_len, len(self.sources[source])))
            tokens[place, : len(window) - 1] = window[:-1]
            targets[place, : len(window) - 1] = window[1:]
        return Batch(tokens, targets, None)

    def valid(self, rows: np.ndarray) -> int:
        return sum(self._last_rows.get(row, self.seq_len) for row in rows.tolist() if row != EMPTY_ROW)


# --- the order of rows ---


class Order:
    """Which rows each step takes.

    A source of R rows and ratio r appears as floor(r) whole copies and a further round((r - floor(r)) * R) distinct rows
    drawn by the seed. All copies of all sources are shuffled together by a permutation that needs no memory; a run longer
    than the whole mix begins it again under another permutation.
    """

    def __init__(self, counts: Sequence[int], ratios: Sequence[float], batch_rows: int, seed: int, total_rows: int | None = None) -> None:
        self.batch_rows, self.seed = batch_rows, seed
        self._counts = np.array(counts, np.int64)
        self._firsts = np.concatenate([[0], np.cumsum(self._counts)]).astype(np.int64)
        drawn = [math.floor(ratio) * count + _rounded(ratio, count) for count, ratio in zip(counts, ratios, strict=True)]
        self._starts = np.concatenate([[0], np.cumsum(drawn)]).astype(np.int64)
        self._whole = [math.floor(ratio) for ratio in ratios]
        self._partial = [Permutation(max(1, count), f"{seed}/source/{place}") for place, count in enumerate(counts)]
        self.rows_in_pass = int(self._starts[-1])
        if self.rows_in_pass == 0:
            raise WorkError("there is nothing to train on: no source has tokens and a ratio above 0")
        self.total_rows = self.rows_in_pass if total_rows is None else total_rows
        self.steps = math.ceil(self.total_rows / batch_rows)

    def rows(self, step: int) -> np.ndarray:
        """The `batch_rows` row numbers of a step; the last step is filled up with `EMPTY_ROW`."""
        places = np.arange(step * self.batch_rows, (step + 1) * self.batch_rows, dtype=np.int64)
        rows = np.full(self.batch_rows, EMPTY_ROW, np.int64)
        inside = places < self.total_rows
        passes = places // self.rows_in_pass
        for number in np.unique(passes[inside]).tolist():
            chosen = inside & (passes == number)
            shuffled = Permutation(self.rows_in_pass, f"{self.seed}/pass/{number}")(places[chosen] % self.rows_in_pass)
            rows[chosen] = self._row_of(shuffled)
        return rows

    def _row_of(self, virtual: np.ndarray) -> np.ndarray:
        sources = np.searchsorted(self._starts, virtual, side="right") - 1
        rows = np.empty_like(virtual)
        for source in np.unique(sources).tolist():
            chosen = sources == source
            copy, within = np.divmod(virtual[chosen] - self._starts[source], self._counts[source])
            partial = copy >= self._whole[source]
            within[partial] = self._partial[source](within[partial])
            rows[chosen] = self._firsts[source] + within
        return rows


def _rounded(ratio: float, count: int) -> int:
    return math.floor((ratio - math.floor(ratio)) * count + 0.5)


def share(rows: np.ndarray, rank: int, workers: int, micro_rows: int) -> np.ndarray:
    """The part of a step's rows that falls to one worker: [micro-batches, rows], the same shape on every worker.

    Micro-batches are as large as they can be with at most `micro_rows` rows and as few empty rows as that allows.
    """
    each = math.ceil(len(rows) / workers)
    count = math.ceil(each / micro_rows)
    size = math.ceil(each / count)
    mine = rows[rank * each : (rank + 1) * each]
    filled = np.full(count * size, EMPTY_ROW, np.int64)
    filled[: len(mine)] = mine
    return filled.reshape(count, size)


class Permutation:
    """A keyed bijection of 0 ... n-1 in constant memory.

    A balanced Feistel network over the next even power of two, walked again while it lands outside (cycle walking;
    Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Not a cipher: the round function is splitmix64's.
    """

    def __init__(self, n: int, key: str) -> None:
        self.n = n
        self._half = np.uint64(max(1, math.ceil((n - 1).bit_length() / 2)))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        digest = hashlib.blake2b(f"{key}/{n}".encode(), digest_size=8 * FEISTEL_ROUNDS).digest()
        self._keys = np.frombuffer(digest, "<u8")

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Where each of `places` (int64, inside 0 ... n-1) goes."""
        values = self._scramble(places.astype(np.uint64))
        while (outside := values >= self.n).any():
            values[outside] = self._scramble(values[outside])
        return values.astype(np.int64)

    def _scramble(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._half, values & self._mask
        for round in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (_mix(right + self._keys[round : round + 1]) & self._mask)
        return left << self._half | right


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
