"""Globs over any filesystem: `*` stays inside a folder, `**` crosses folders."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pyarrow import fs as pafs

from cluster.storage import Folder

MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True, order=True)
class LocalFile:
    """A file of the user's own: its absolute path or URL, its path below the glob's fixed part, its size and time."""

    path: str
    relative: str
    bytes: int
    mtime_ns: int


@lru_cache(maxsize=1024)
def glob_pattern(glob: str) -> re.Pattern[str]:
    """The regular expression that a whole path must match."""
    pieces, position = [], 0
    while position < len(glob):
        rest = glob[position:]
        if rest.startswith("**/"):
            pieces.append("(?:.*/)?")
            position += 3
        elif rest.startswith("**"):
            pieces.append(".*")
            position += 2
        elif rest[0] in "*?":
            pieces.append("[^/]*" if rest[0] == "*" else "[^/]")
            position += 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            inside = rest[1:end].replace("\\", r"\\").replace("^", r"\^").replace("[", r"\[")
            pieces.append(f"[^{inside[1:]}/]" if inside[0] == "!" else f"[{inside}]")
            position += end + 1
        else:
            pieces.append(re.escape(rest[0]))
            position += 1
    return re.compile("".join(pieces), re.DOTALL)


def matches(path: str, globs: tuple[str, ...]) -> bool:
    """Whether `path` matches one of `globs`."""
    return any(glob_pattern(glob).fullmatch(path) for glob in globs)


def list_files(glob: str, suffixes: tuple[str, ...] = ()) -> list[LocalFile]:
    """The files that a path, folder or glob stands for, sorted by path; of a folder all files with one of `suffixes`.

    Hidden files and folders are left out unless the glob names them.
    """
    root, pattern = _split(glob)
    folder = Folder(root)
    filesystem, base = folder.filesystem, folder.path
    if not pattern:
        info = filesystem.get_file_info(base)
        if info.type == pafs.FileType.File:
            return [_describe(info, root, base.rpartition("/")[2])]
        pattern, wanted = "**", suffixes
    else:
        wanted = ()
    found = []
    for info in filesystem.get_file_info(pafs.FileSelector(base, recursive="/" in pattern or "**" in pattern, allow_not_found=True)):
        relative = info.path[len(base) :].lstrip("/")
        hidden = "/." in f"/{relative}" and "." not in re.split(r"[^.]", pattern, maxsplit=1)[0]
        if info.type != pafs.FileType.File or hidden or not glob_pattern(pattern).fullmatch(relative):
            continue
        if not wanted or relative.lower().endswith(wanted):
            found.append(_describe(info, f"{root.rstrip('/')}/{relative}", relative))
    return sorted(found)


def _split(glob: str) -> tuple[str, str]:
    """A glob as its fixed folder (absolute if local) and the pattern below it."""
    root = glob if "://" in glob else os.path.abspath(Path(glob).expanduser())
    magic = MAGIC.search(root)
    if magic is None:
        return root, ""
    cut = root.rfind("/", 0, magic.start())
    return root[:cut] or "/", root[cut + 1 :]


def _describe(info: pafs.FileInfo, path: str, relative: str) -> LocalFile:
    return LocalFile(path, relative, info.size or 0, info.mtime_ns or 0)
