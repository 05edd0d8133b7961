"""Data sets of the Hugging Face hub. HF_ENDPOINT and HF_TOKEN are honoured."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import RequestError, WorkError
from cluster.storage import Folder
from pipelines.sources.config import HubSource
from pipelines.sources.globs import matches


def resolve(source: HubSource) -> dict[str, Any]:
    """The commit that `revision` stands for and the wanted files in it: {dataset, commit, files}. Asks the hub."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    where = f"source {source.name!r}: data set {source.dataset} at {source.revision}"
    advice = "correct `dataset` and `revision`, or download it elsewhere and read it with `reader: parquet` and local `paths`"
    try:
        info = HfApi(endpoint=endpoint()).dataset_info(source.dataset, revision=source.revision)
    except (HfHubHTTPError, HFValidationError) as error:
        raise RequestError(f"{where} cannot be had from the hub ({_first_line(error)}); {advice}") from None
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise RequestError(f"{where}: the hub cannot be reached ({_first_line(error)}); {advice}") from None
    files = sorted(item.rfilename for item in info.siblings or [] if matches(item.rfilename, source.files))
    if not files:
        raise RequestError(f"{where} has no file that matches {', '.join(source.files)}; correct `files`")
    return {"dataset": source.dataset, "commit": info.sha, "files": files}


@dataclass(frozen=True)
class HubDownload:
    """Downloads one file of a data set into a folder; a part of `map_parts`."""

    files: Folder
    endpoint: str | None

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        from httpx2 import HTTPError
        from huggingface_hub import hf_hub_download

        from pipelines.sources.apt import sha256_of

        with tempfile.TemporaryDirectory() as scratch:
            try:
                path = hf_hub_download(
                    part["dataset"],
                    part["file"],
                    repo_type="dataset",
                    revision=part["commit"],
                    local_dir=scratch,
                    endpoint=self.endpoint,
                )
            except (HTTPError, OSError) as error:
                raise WorkError(f"{part['dataset']}/{part['file']} could not be downloaded ({_first_line(error)}); run again") from None
            self.files.add_file(part["path"], Path(path))
            return {"bytes": Path(path).stat().st_size, "sha256": sha256_of(Path(path))}


def endpoint() -> str | None:
    """The hub's address when HF_ENDPOINT names another one than the public hub."""
    return os.environ.get("HF_ENDPOINT") or None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
