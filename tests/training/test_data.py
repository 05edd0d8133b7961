from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import RequestError, WorkError
from cluster.storage import Folder
from tests.training.tiny import settings, write_shard, write_tokens
from training.data import IGNORE, Rows, TrainingData, local_copy, open_tokens, seen_by_source, token_order
from training.order import EMPTY_ROW


def opened(folder: Folder, *, cache: Path | None = None, **changes: Any) -> TrainingData:
    return open_tokens(folder, settings(**{"eval_tokens": 60, **changes}), cache=cache)


def counted(rows: Rows, numbers: np.ndarray) -> int:
    """Targets of these rows."""
    return int((rows.read(numbers).targets != IGNORE).sum())


def laid_out(folder: Folder, source: str) -> np.ndarray:
    shards = folder.read_json("index.json")["sources"][source]["shards"]
    return np.concatenate([np.fromfile(folder.local_path(shard["path"]), "<u2") for shard in shards])


def test_every_token_is_a_target_once_after_the_token_before_it(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path)
    data = opened(folder)
    batch = data.rows.read(np.arange(len(data.rows)))
    valid = batch.targets != IGNORE
    expected = [laid_out(folder, source) for source in ("alpha", "beta")]
    assert batch.targets[valid].tolist() == np.concatenate(expected).tolist()
    assert batch.tokens[valid].tolist() == np.concatenate([[0, *tokens[:-1]] for tokens in expected]).tolist()
    assert counted(data.rows, np.arange(len(data.rows))) == valid.sum()
    assert counted(data.rows, np.array([0, EMPTY_ROW])) == 16


def test_token_limit_sets_the_steps(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path)
    assert opened(folder, tokens=1000).order.steps == 8
    assert opened(folder, tokens=1024).order.steps == 8
    assert opened(folder, tokens=1025).order.steps == 9


def test_heldout_readings_cover_whole_documents_with_their_bytes(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path)
    data = opened(folder, eval_tokens=60)
    index = folder.read_json("index.json")["heldout"]["fr"]
    ends, sizes = np.load(tmp_path / "heldout/fr.idx.npy"), np.load(tmp_path / "heldout/fr.bytes.npy")
    documents = int((ends <= 60).sum())
    assert 0 < documents < index["documents"]
    assert data.quick["fr"].bytes == sizes[:documents].sum()
    rows = data.quick["fr"].rows
    assert counted(rows, np.arange(len(rows))) == ends[documents - 1]
    assert data.heldout["fr"].bytes == index["bytes"]
    whole = data.heldout["fr"].rows
    assert counted(whole, np.arange(len(whole))) == index["tokens"]


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


def test_what_was_seen_of_each_source_is_counted_from_the_index_alone(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path)
    data = opened(folder, tokens=4000)
    index = folder.read_json("index.json")
    rows, order = token_order(index, settings(tokens=4000))
    rows_of_alpha = rows.counts[0]
    assert seen_by_source(rows, order) == data.seen(data.order.steps)
    tokens: dict[str, float] = {"alpha": 0, "beta": 0}
    for step in range(data.order.steps):
        for name, seen in data.seen(step).items():
            assert seen["tokens"] == tokens[name]
            assert seen["epochs"] == pytest.approx(tokens[name] / index["sources"][name]["tokens"], abs=1e-4)
        for row in data.order.rows(step).tolist():
            if row != EMPTY_ROW:
                tokens["alpha" if row < rows_of_alpha else "beta"] += counted(data.rows, np.array([row]))
    assert sum(seen["tokens"] for seen in data.seen(data.order.steps).values()) == sum(tokens.values())
    shifts = [(0, 5), (3, 2)]  # a run that began at the order's step 5 and passed over two more steps at its step 3
    passed = [data.order.rows(step, 5 + 2 * (step >= 3)) for step in range(6)]
    alpha = counted(data.rows, np.concatenate([rows[rows < rows_of_alpha] for rows in passed]))
    assert data.seen(6, shifts)["alpha"]["tokens"] == alpha


def test_another_mix_may_leave_sources_out_and_bring_others_in(tmp_path: Path) -> None:
    folder = write_tokens(tmp_path / "tokens")
    added = Folder(str(tmp_path / "added"))
    shard = write_shard(tmp_path / "added", "train/chat.bin", 12, 9)
    added.write_json("index.json", {"sources": {"chat": {"stream": "chat", "ratio": 0.0, "shards": [shard]}}})
    data = open_tokens(folder, settings(), ratios={"alpha": 0.0, "beta": 1.0, "chat": 2.0}, added=added)
    assert set(data.seen(data.order.steps)) == {"beta", "chat"}
    assert data.seen(data.order.steps)["chat"]["tokens"] == 2 * shard["tokens"]
    targets = [data.rows.read(data.order.rows(step)).targets for step in range(data.order.steps)]
    beta = laid_out(folder, "beta").tolist()
    chat = np.fromfile(tmp_path / "added/train/chat.bin", "<u2").tolist()
    assert sorted(np.concatenate(targets)[np.concatenate(targets) != IGNORE].tolist()) == sorted(beta + 2 * chat)
    assert data.fingerprint != open_tokens(folder, settings()).fingerprint
    with pytest.raises(WorkError, match="no source gamma"):
        open_tokens(folder, settings(), ratios={"gamma": 1.0})


def test_documents_of_a_row_are_numbered_where_attention_stops_at_their_start(tmp_path: Path) -> None:
    batch = opened(write_tokens(tmp_path), mask_documents=True).rows.read(np.arange(4))
    assert batch.segments is not None
    for tokens, segments in zip(batch.tokens, batch.segments, strict=True):
        assert (np.diff(segments, prepend=0) == (tokens == 0)).all()


def in_memory(local: Path, name: str) -> Folder:
    import fsspec

    fsspec.filesystem("memory").put(str(local), f"/{name}", recursive=True)
    return Folder(f"memory://{name}")


def test_a_remote_artifact_is_read_through_a_local_copy(tmp_path: Path) -> None:
    local = write_tokens(tmp_path / "local")
    remote = in_memory(tmp_path / "local", "fournil-test-tokens")
    near, far = opened(local), opened(remote, cache=tmp_path / "cache")
    rows = near.order.rows(0)
    assert (near.rows.read(rows).targets == far.rows.read(rows).targets).all()
    assert near.fingerprint == far.fingerprint
    again = local_copy(remote, ["index.json"], tmp_path / "cache")
    assert (again / "index.json").read_bytes() == local.read_bytes("index.json")


def test_workers_of_a_host_share_one_copy_and_mend_a_torn_one(tmp_path: Path) -> None:
    write_tokens(tmp_path / "local")
    remote = in_memory(tmp_path / "local", "fournil-test-shared")
    names = [str(file.relative_to(tmp_path / "local")) for file in sorted((tmp_path / "local").rglob("*")) if file.is_file()]
    root = local_copy(remote, names[:1], tmp_path / "cache")
    (root / names[0]).write_bytes(b"")
    with ThreadPoolExecutor(4) as workers:
        assert set(workers.map(lambda _: local_copy(remote, names, tmp_path / "cache"), range(4))) == {root}
    for name in names:
        assert (root / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert not list(root.rglob(".part-*"))


def test_a_copy_that_cannot_fit_is_refused_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tokens(tmp_path / "local")
    remote = in_memory(tmp_path / "local", "fournil-test-large")
    full = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(RequestError, match="set TMPDIR to a larger disk"):
        local_copy(remote, ["train/beta/0.bin"], tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.bin"))
