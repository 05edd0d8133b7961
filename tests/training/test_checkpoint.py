from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from cluster.errors import RequestError, WorkError
from cluster.storage import Folder
from tests.training.faults import join_group, run_group
from tests.training.tiny import MODEL, VOCAB
from training.checkpoint import Checkpoints, checkpoint_folder, checkpoint_steps, load_step, load_weights
from training.config import OptimConfig
from training.distributed import World, build_model, full_state_dict, open_world
from training.model import Llama
from training.optim import build_optimizer


@pytest.fixture
def world() -> Iterator[World]:
    with open_world("fp32") as alone:
        yield alone


def made(world: World, seed: int = 1) -> tuple[Llama, torch.optim.Optimizer]:
    model = build_model(MODEL, VOCAB, seed, world, compile_blocks=False)
    return model, build_optimizer(model, OptimConfig())


def one_step(model: Llama, optimizer: torch.optim.Optimizer) -> float:
    tokens = torch.arange(64).view(4, 16)
    loss = model(tokens, tokens + 1)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def saved(folder: Path, world: World, steps: tuple[int, ...], keep: int = 9, **more: Any) -> list[dict[str, torch.Tensor]]:
    """Checkpoints after some optimizer steps, and the weights in each."""
    model, optimizer = made(world)
    states = []
    with Checkpoints(folder, world, keep, "a", **more) as checkpoints:
        for step in steps:
            one_step(model, optimizer)
            checkpoints.save(model, optimizer, {"step": step})
            states.append({name: tensor.clone() for name, tensor in full_state_dict(model).items()})
    return states


def loaded(folder: Path, world: World) -> tuple[dict[str, Any] | None, list[str], Llama, torch.optim.Optimizer]:
    model, optimizer = made(world, seed=2)
    facts, notes = Checkpoints(folder, world, 9, "b").load(model, optimizer, lambda _: None)
    return facts, notes, model, optimizer


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("background", [True, False])
def test_a_checkpoint_gives_back_weights_and_moments(tmp_path: Path, world: World, background: bool) -> None:
    states = saved(tmp_path, world, (3, 7), background=background)
    facts, notes, model, optimizer = loaded(tmp_path, world)
    assert facts is not None
    assert (facts["step"], facts["workers"], notes) == (7, 1, [])
    assert equal(full_state_dict(model), states[-1])
    twin, twin_optimizer = made(world)
    losses = [one_step(twin, twin_optimizer) for _ in range(3)]
    assert one_step(model, optimizer) == losses[2]
    assert equal(full_state_dict(model), full_state_dict(twin))


def test_only_the_last_ones_are_kept(tmp_path: Path, world: World) -> None:
    saved(tmp_path, world, (1, 2, 3, 4), keep=2)
    assert checkpoint_steps(tmp_path) == [3, 4]
    assert not list(tmp_path.glob(".tmp-*"))


def test_every_so_many_steps_one_is_kept_for_good(tmp_path: Path, world: World) -> None:
    saved(tmp_path, world, (2, 4, 6, 8, 10), keep=2, keep_every=4)
    assert checkpoint_steps(tmp_path) == [4, 8, 10]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, world: World) -> None:
    """A named pipe in the place of a file holds the writer up until somebody reads from it."""
    model, optimizer = made(world)
    with Checkpoints(tmp_path, world, 9, "a") as checkpoints:
        pipe = tmp_path / ".tmp-step-00000001-a/.metadata.tmp"
        pipe.parent.mkdir()
        os.mkfifo(pipe)
        late = threading.Timer(20, pipe.read_bytes)
        late.start()
        checkpoints.save(model, optimizer, {"step": 1})
        one_step(model, optimizer)
        assert late.is_alive()
        late.cancel()
        assert checkpoint_steps(tmp_path) == []
        assert pipe.read_bytes()
        with pytest.raises(RuntimeError, match="step-00000001 could not be written"):  # a pipe cannot be synced to the disk
            checkpoints.wait()
        checkpoints.save(model, optimizer, {"step": 2})
    assert checkpoint_steps(tmp_path) == [2]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 200 kB, as on a disk that is full by then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("background", [True, False])
def test_a_file_that_cannot_grow_ends_the_run_with_what_to_do(tmp_path: Path, world: World, background: bool) -> None:
    with pytest.raises(WorkError, match=r"step-00000001 cannot be written to .*File too large.*make room there"):
        saved(tmp_path, world, (1,), background=background)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, world: World) -> None:
    states = saved(tmp_path, world, (1,))
    model, optimizer = made(world)
    checkpoints = Checkpoints(tmp_path, world, 9, "a")
    (tmp_path / ".tmp-step-00000002-a").mkdir()
    (tmp_path / ".tmp-step-00000002-a/__0_0.distcp").symlink_to("/dev/full")
    checkpoints.save(model, optimizer, {"step": 2})
    with pytest.raises(WorkError, match="No space left on device"):
        checkpoints.save(model, optimizer, {"step": 3})
    facts, notes, model, _ = loaded(tmp_path, world)
    assert facts is not None
    assert (facts["step"], notes) == (1, [])
    assert equal(full_state_dict(model), states[0])


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["metadata", "value"])
def test_a_pickle_from_outside_is_not_run(tmp_path: Path, world: World, place: str) -> None:
    trap, folder = Trap(tmp_path / "sprung"), tmp_path / "checkpoints"
    saved(folder, world, (1,))
    path = folder / "step-00000001"
    model, optimizer = made(world)
    if place == "metadata":
        (path / ".metadata").write_bytes(pickle.dumps(trap))
    else:
        one_step(model, optimizer)
        for group in optimizer.param_groups:
            group["maximize"] = trap
        shutil.rmtree(folder)
        Checkpoints(folder, world, 9, "a", background=False).save(model, optimizer, {"step": 1})
        model, optimizer = made(world)
    with pytest.raises(WorkError, match="cannot be read"):
        load_step(model, optimizer, folder, 1)
    assert not (tmp_path / "sprung").exists()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "state.json"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink], ids=["flipped", "cut", "gone"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, world: World, name: str, damage: Any) -> None:
    states = saved(tmp_path, world, (1, 2))
    if (name, damage) == ("state.json", flip):
        (tmp_path / "step-00000002/state.json").write_text("[]")
    else:
        damage(tmp_path / "step-00000002" / name)
    facts, notes, model, _ = loaded(tmp_path, world)
    assert facts is not None
    assert facts["step"] == 1
    assert "step-00000002 is damaged" in notes[0]
    assert equal(full_state_dict(model), states[0])


def test_nothing_sound_means_to_begin(tmp_path: Path, world: World) -> None:
    assert loaded(tmp_path / "new", world)[0] is None
    saved(tmp_path, world, (1,))
    cut(tmp_path / "step-00000001/__0_0.distcp")
    facts, notes, _, _ = loaded(tmp_path, world)
    assert facts is None
    assert len(notes) == 1


def test_unfinished_folders_do_not_count_and_are_swept(tmp_path: Path, world: World) -> None:
    saved(tmp_path, world, (1,))
    (tmp_path / ".tmp-step-00000002-x").mkdir()
    (tmp_path / ".tmp-step-00000002-x/__0_0.distcp").write_bytes(b"half")
    assert checkpoint_steps(tmp_path) == [1]
    facts, _, _, _ = loaded(tmp_path, world)
    assert facts is not None
    assert facts["step"] == 1
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_damaged_checkpoint_is_written_again(tmp_path: Path, world: World) -> None:
    saved(tmp_path, world, (1, 2))
    flip(tmp_path / "step-00000002/__0_0.distcp")
    states = saved(tmp_path, world, (1, 2))
    facts, notes, model, _ = loaded(tmp_path, world)
    assert facts is not None
    assert (facts["step"], notes) == (2, [])
    assert equal(full_state_dict(model), states[1])


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, world: World) -> None:
    saved(tmp_path, world, (1,))
    model, optimizer = made(world)

    def refuse(facts: dict[str, Any]) -> None:
        raise WorkError(f"not mine: {facts['step']}")

    with pytest.raises(WorkError, match="not mine: 1"):
        Checkpoints(tmp_path, world, 9, "b").load(model, optimizer, refuse)


def test_starting_weights_must_exist_and_be_readable(tmp_path: Path, world: World) -> None:
    model, _ = made(world)
    with pytest.raises(RequestError, match="no checkpoint to start from"):
        load_weights(model, tmp_path)
    saved(tmp_path, world, (1,))
    cut(tmp_path / "step-00000001/.metadata")
    with pytest.raises(WorkError, match="cannot be read"):
        load_weights(model, tmp_path)


def test_object_stores_are_refused_with_what_to_do() -> None:
    with pytest.raises(RequestError, match="mount it"):
        checkpoint_folder(Folder("memory://artifacts/pretrain"))


def _fill_the_disk_of_one(rank: int, folder: Path, world: World) -> None:
    """All workers learn that one of them could not write."""
    model, optimizer = made(world)
    checkpoints = Checkpoints(folder, world, 9, "b")
    if rank == 1:
        (folder / ".tmp-step-00000006-b").mkdir()
        (folder / ".tmp-step-00000006-b/__1_0.distcp").symlink_to("/dev/full")
    world.wait()
    checkpoints.save(model, optimizer, {"step": 6})
    with pytest.raises(WorkError, match="No space left on device"):
        checkpoints.wait()


def _save_in_a_world_of_two(rank: int, folder: str) -> None:
    join_group(rank, 2, Path(folder) / "store")
    with open_world("fp32", threads=1) as world:
        states = saved(Path(folder) / "two", world, (5,))
        _fill_the_disk_of_one(rank, Path(folder) / "two", world)
        if world.is_main:
            torch.save(states[0], f"{folder}/weights.pt")
        facts, _, model, optimizer = loaded(Path(folder) / "one", world)
        one_step(model, optimizer)
        after = full_state_dict(model)
        if world.is_main:
            assert facts is not None
            torch.save(after, f"{folder}/after.pt")
    dist.destroy_process_group()


def test_checkpoints_move_between_worker_counts(tmp_path: Path, world: World) -> None:
    saved(tmp_path / "one", world, (1, 2))
    assert run_group(_save_in_a_world_of_two, 2, str(tmp_path))
    facts, notes, model, _ = loaded(tmp_path / "two", world)
    assert facts is not None
    assert (facts["step"], facts["workers"], notes) == (5, 2, [])
    assert len(json.loads((tmp_path / "two/step-00000005/state.json").read_text())["files"]) == 3
    assert equal(full_state_dict(model), torch.load(tmp_path / "weights.pt"))
    twin, twin_optimizer = made(world)
    for _ in range(3):
        one_step(twin, twin_optimizer)
    after = torch.load(tmp_path / "after.pt")
    assert all(torch.allclose(tensor, after[name], atol=1e-6) for name, tensor in full_state_dict(twin).items())
