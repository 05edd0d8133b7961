"""Message catalogues (GNU .mo files) as parallel documents."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from pipelines.sources.config import GettextSource
from pipelines.sources.files import UnitFile, input_files
from pipelines.sources.records import Damage, Found, Record
from pipelines.sources.segments import parallel_text
from pipelines.sources.streams import read_whole

MAX_CATALOGUE_BYTES = 256 * 2**20
MAX_MESSAGES = 10_000_000
_MAGIC = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}
_CHARSET = re.compile(r"charset=([\w.-]{2,20})")
_LETTERS = re.compile(r"[^\W\d_]{2,}")


def read_gettext(source: GettextSource, files: Sequence[UnitFile]) -> Iterator[Record]:
    """Documents of `messages_per_document` messages in the order of the catalogue (that of the original messages)."""
    for file in input_files(files, source.members):
        if isinstance(file, Damage):
            yield file
            continue
        try:
            messages = [pair for pair in catalogue(read_whole(file.open(), MAX_CATALOGUE_BYTES)) if _is_prose(*pair)]
        except Damage as damage:
            yield damage.at(file.url)
            continue
        if not messages:
            yield Damage("untranslated", file.url)
        for start in range(0, len(messages), source.messages_per_document):
            group = messages[start : start + source.messages_per_document]
            text, translation = parallel_text(without_accelerators(translated, original) for original, translated in group)
            url = f"{file.url}#{start}"
            if text:
                yield Found(url, text, {"kind": "parallel"}, translation=translation)
            else:
                yield Damage("untranslated", url, excerpt=group[0][0])


def catalogue(data: bytes) -> Iterator[tuple[str, str]]:
    """(original, translation) of a .mo file; plural forms give a pair for the singular and one for the plural.

    Format: https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html
    """
    order = _MAGIC.get(data[:4])
    if order is None or len(data) < 20:
        raise Damage("bad_catalogue", excerpt="no .mo file")
    _, revision, count, originals, translations = struct.unpack_from(f"{order}5I", data)
    if revision >> 16 > 1 or count > MAX_MESSAGES or max(originals, translations) + 8 * count > len(data):
        raise Damage("bad_catalogue", excerpt="the header does not fit the file", value=count)
    charset = "utf-8"
    for number in range(count):
        original = _string(data, order, originals + 8 * number)
        translated = _string(data, order, translations + 8 * number)
        try:
            if not original:
                found = _CHARSET.search(translated.decode("ascii", "replace"))
                charset = found.group(1) if found else charset
                continue
            sources, targets = original.decode(charset).split("\0"), translated.decode(charset).split("\0")
        except (UnicodeDecodeError, LookupError):
            raise Damage("invalid_utf8", excerpt=translated.decode("utf-8", "replace"), value=number) from None
        sources[0] = sources[0].rpartition("\x04")[2]
        yield sources[0], targets[0]
        if len(sources) > 1 and len(targets) > 1:
            yield sources[1], targets[1]


def _string(data: bytes, order: str, place: int) -> bytes:
    length, offset = struct.unpack_from(f"{order}2I", data, place)
    if offset + length > len(data):
        raise Damage("bad_catalogue", excerpt="a message lies beyond the end of the file", value=offset)
    return data[offset : offset + length]


def _is_prose(original: str, translated: str) -> bool:
    """At least two words on each side; single words and format strings teach no translation."""
    return len(_LETTERS.findall(original)) > 1 and len(_LETTERS.findall(translated)) > 1


def without_accelerators(one: str, other: str) -> tuple[str, str]:
    """A pair without the marks of keyboard shortcuts (`_File`, `~Édition`, `&Help`), which stand once on each side."""
    for mark in "_~&":
        if one.count(mark) == 1 and other.count(mark) == 1 and f"{mark} " not in f"{one} {other} ":
            return one.replace(mark, ""), other.replace(mark, "")
    return one, other
