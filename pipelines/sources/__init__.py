"""Readers: one kind of source a module, each a function from (source, files) to documents found and records damaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.sources.config import Source
    from pipelines.sources.files import UnitFile
    from pipelines.sources.records import Record

READERS = {
    "stardict": ("dictionaries", "read_stardict"),
    "dictd": ("dictionaries", "read_dictd"),
    "descriptions": ("descriptions", "read_descriptions"),
    "html": ("html", "read_html"),
    "aligned_html": ("aligned_html", "read_aligned_html"),
    "manpages": ("manpages", "read_manpages"),
    "gettext": ("gettext", "read_gettext"),
    "text": ("text", "read_text"),
    "jsonl": ("rows", "read_jsonl"),
    "parquet": ("rows", "read_parquet"),
    "hub": ("rows", "read_rows"),
}
"""Module and function by `reader`; imported only by the worker that reads."""


def read_records(source: Source, files: Sequence[UnitFile]) -> Iterator[Record]:
    """All records of a unit's files, in order."""
    module, function = READERS[source.reader]
    return getattr(import_module(f"pipelines.sources.{module}"), function)(source, files)
