from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import WorkError
from cluster.storage import Folder
from tests.training.tiny import write_tokens
from training.data import EMPTY_ROW, IGNORE, Order, Permutation, TrainingData, local_copy, open_tokens, share


def opened(folder: Folder, **changes: int | None) -> TrainingData:
    wanted = {"seq_len": 16, "batch_tokens": 128, "tokens": None, "seed": 1, "quick_tokens": 60, **changes}
    return open_tokens(folder, **wanted)  # type: ignore[arg-type]


def seen(order: Order) -> list[int]:
    return [row for step in range(order.steps) for row in order.rows(step).tolist() if row != EMPTY_ROW]


def laid_out(folder: Folder, source: str) -> np.ndarray:
    shards = folder.read_json("index.json")["sources"][source]["shards"]
    return np.concatenate([np.fromfile(folder.local_path(shard["path"]), "<u2") for shard in shards])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.text(max_size=5))
def test_permutation_is_a_bijection(n: int, key: str) -> None:
    assert sorted(Permutation(n, key)(np.arange(n)).tolist()) == list(range(n))


def test_permutation_depends_on_its_key_and_leaves_no_order() -> None:
    places = np.arange(4096)
    one, two = Permutation(4096, "1")(places), Permutation(4096, "2")(places)
    assert (one == two).mean() < 0.01
    assert abs(np.corrcoef(one, places)[0, 1]) < 0.05
    assert np.abs(np.diff(one)).mean() == pytest.approx(4096 / 3, rel=0.05)


mixes = st.lists(st.tuples(st.integers(0, 40), st.floats(0, 5)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(mixes, st.integers(1, 16), st.integers(0, 3))
def test_each_row_is_seen_as_often_as_its_ratio_says(mix: list[tuple[int, float]], batch_rows: int, seed: int) -> None:
    counts, ratios = [count for count, _ in mix], [ratio for _, ratio in mix]
    try:
        order = Order(counts, ratios, batch_rows, seed)
    except WorkError:
        assert all(int(ratio * count + 0.5) == 0 or int(ratio) == 0 for count, ratio in mix)
        return
    times = Counter(seen(order))
    first = 0
    for count, ratio in mix:
        whole = int(ratio)
        rows = [times.pop(row, 0) for row in range(first, first + count)]
        assert set(rows) <= {whole, whole + 1}
        assert rows.count(whole + 1) == int((ratio - whole) * count + 0.5)
        first += count
    assert not times


@settings(deadline=None, max_examples=60)
@given(mixes.filter(lambda mix: any(count and ratio >= 1 for count, ratio in mix)), st.integers(1, 40), st.integers(0, 50))
def test_order_is_a_pure_function_of_seed_and_step(mix: list[tuple[int, float]], batch_rows: int, seed: int) -> None:
    counts, ratios = [count for count, _ in mix], [ratio for _, ratio in mix]
    going = Order(counts, ratios, batch_rows, seed)
    steps = [going.rows(step) for step in range(going.steps)]
    for step in reversed(range(going.steps)):
        assert (Order(counts, ratios, batch_rows, seed).rows(step) == steps[step]).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 9))
def test_workers_share_a_step_without_loss_in_equal_shapes(batch_rows: int, workers: int, micro_rows: int) -> None:
    rows = np.arange(batch_rows)
    parts = [share(rows, rank, workers, micro_rows) for rank in range(workers)]
    assert len({part.shape for part in parts}) == 1
    assert parts[0].shape[1] <= micro_rows
    assert [row for part in parts for row in part.ravel().tolist() if row != EMPTY_ROW] == rows.tolist()


def test_runs_longer_than_the_mix_begin_it_again_in_another_order() -> None:
    order = Order([10], [1.0], 5, seed=3, total_rows=20)
    rows = seen(order)
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]


def test_no_source_to_train_on_is_an_error() -> None:
    with pytest.raises(WorkError, match="nothing to train on"):
        Order([4, 0], [0.0, 2.0], 2, seed=1)


def test_every_token_is_a_target_once_after_the_token_before_it(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path)
    data = opened(folder)
    batch = data.rows.read(np.arange(len(data.rows)))
    valid = batch.targets != IGNORE
    expected = [laid_out(folder, source) for source in ("alpha", "beta")]
    assert batch.targets[valid].tolist() == np.concatenate(expected).tolist()
    assert batch.tokens[valid].tolist() == np.concatenate([[0, *tokens[:-1]] for tokens in expected]).tolist()
    assert data.rows.valid(np.arange(len(data.rows))) == valid.sum()
    assert data.rows.valid(np.array([0, EMPTY_ROW])) == 16


def test_token_limit_sets_the_steps(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path)
    assert opened(folder, tokens=1000).order.steps == 8
    assert opened(folder, tokens=1024).order.steps == 8
    assert opened(folder, tokens=1025).order.steps == 9


def test_heldout_readings_cover_whole_documents_with_their_bytes(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path)
    data = opened(folder, quick_tokens=60)
    index = folder.read_json("index.json")["heldout"]["fr"]
    ends, sizes = np.load(tmp_path / "heldout/fr.idx.npy"), np.load(tmp_path / "heldout/fr.bytes.npy")
    documents = int((ends <= 60).sum())
    assert 0 < documents < index["documents"]
    assert data.quick["fr"].bytes == sizes[:documents].sum()
    rows = data.quick["fr"].rows
    assert rows.valid(np.arange(len(rows))) == ends[documents - 1]
    assert data.heldout["fr"].bytes == index["bytes"]
    whole = data.heldout["fr"].rows
    assert whole.valid(np.arange(len(whole))) == index["tokens"]


def test_fingerprint_notices_other_data_and_names_it(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path)
    saved = json.loads(json.dumps(asdict(opened(folder).fingerprint)))
    opened(folder).fingerprint.check(saved)
    with pytest.raises(WorkError, match="seed 1 -> 2"):
        opened(folder, seed=2).fingerprint.check(saved)
    shard = tmp_path / "train/beta/0.bin"
    changed = bytearray(shard.read_bytes())
    changed[0] ^= 1
    shard.write_bytes(changed)
    with pytest.raises(WorkError, match=r"other data .*content"):
        opened(folder).fingerprint.check(saved)


def test_a_remote_artifact_is_read_through_a_local_copy(tmp_path: Path) -> None:
    import fsspec

    local = write_tokens(tmp_path / "local")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "local"), "/fournil-test-tokens", recursive=True)
    remote = Folder("memory://fournil-test-tokens")
    near, far = (
        opened(local),
        open_tokens(remote, seq_len=16, batch_tokens=128, tokens=None, seed=1, quick_tokens=60, cache=tmp_path / "cache"),
    )
    rows = near.order.rows(0)
    assert (near.rows.read(rows).targets == far.rows.read(rows).targets).all()
    assert near.fingerprint == far.fingerprint
    again = local_copy(remote, ["index.json"], tmp_path / "cache")
    assert (again / "index.json").read_bytes() == local.read_bytes("index.json")
