"""Keys that all language versions of one page share."""

from __future__ import annotations

import re

LANGUAGE_TAG = r"(?:[a-z]{2}(?:[-_][A-Za-z]{2})?|C)"
_FOLDER = re.compile(rf"(?:^|(?<=/)){LANGUAGE_TAG}/")
_INFIX = re.compile(rf"[.]{LANGUAGE_TAG}(?=[.][a-z0-9]+$)")
_SUFFIX = re.compile(r"-(?:[a-z]{2}|[a-z]{2}-[a-z]{2})(?=/)")
_COMPRESSED = re.compile(r"\.(gz|bz2|xz|zst)$")


def neutral_path(path: str) -> str:
    """`path` without its language tags and compression suffix: `man/fr/man2/open.2.gz` and `man/man2/open.2.gz` both give
    `man/man2/open.2`, `guide-fr/ch01.fr.html` and `guide/ch01.en.html` both give `guide/ch01.html`."""
    path = _COMPRESSED.sub("", path)
    return _SUFFIX.sub("", _INFIX.sub("", _FOLDER.sub("", path)))


def page_key(collection: str, path: str) -> str:
    """The page a file is a version of: the collection's name and the path without language tags."""
    return f"{collection}:{neutral_path(path)}"
