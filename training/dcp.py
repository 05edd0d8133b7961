"""Reading a checkpoint's files without running what a pickle in them may ask for.

Torch reads each tensor with `weights_only=True`, but unpickles `.metadata` and whatever is no tensor (learning rates and the
like) without a check. Here both must first pass as what torch itself writes there.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem

from cluster.errors import WorkError

METADATA = ".metadata"

_RECORDS = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "TensorStorageMetadata",
        "TensorProperties",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "pathlib": {"PosixPath"},
}


def read_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Fill a (sharded) state dict from the checkpoint folder `path`; a collective call, in which all workers fail if one does."""
    try:
        alone = not dist.is_initialized() or dist.get_world_size() == 1  # then without gloo, as `Checkpoints` says
        state_dict_loader.load(state, storage_reader=_Reader(path), planner=_LoadPlanner(), no_dist=alone)
    except CheckpointException as error:
        cause, _ = next(iter(error.failures.values()))
        raise WorkError(f"checkpoint {path} cannot be read ({cause}); delete its artifact and bake again") from cause


class _Reader(FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / METADATA).open("rb") as source:
            _MetadataUnpickler(source).load()
        return super().read_metadata(*args, **kwargs)


class _LoadPlanner(DefaultLoadPlanner):
    def load_bytes(self, read_item: ReadItem, value: BytesIO) -> None:
        torch.load(value, weights_only=True)
        value.seek(0)
        super().load_bytes(read_item, value)


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if name in _RECORDS.get(module, ()) or is_dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{METADATA} names {module}.{name}, which is no part of a checkpoint")
