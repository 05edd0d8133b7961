"""StarDict and dictd dictionaries: an index of headwords and one stream of articles, read from front to back."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pipelines.sources.articles import article_text, gcide_article, pango_article, wordnet_article
from pipelines.sources.config import DictdSource, StarDictSource
from pipelines.sources.files import UnitFile, input_files
from pipelines.sources.records import Damage, Found, Record
from pipelines.sources.streams import CHUNK, MAX_DOCUMENT_BYTES, Guarded, decode, read_whole

MAX_INDEX_BYTES = 512 * 2**20
_DIGITS = {digit: value for value, digit in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One article: where it is in the stream and all headwords that lead to it."""

    offset: int
    size: int
    headwords: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Article:
    """The bytes of one article."""

    url: str
    headwords: tuple[str, ...]
    data: bytes


def read_stardict(source: StarDictSource, files: Sequence[UnitFile]) -> Iterator[Record]:
    """One document an article of `*.dict.dz`, without the sections in `drop_sections`."""
    for article in _articles(files, source.members, (".idx", ".idx.gz"), stardict_index):
        yield article if isinstance(article, Damage) else _document(article, partial(pango_article, drop=source.drop_sections))


def read_dictd(source: DictdSource, files: Sequence[UnitFile]) -> Iterator[Record]:
    """One document an article of `*.dict.dz`; the articles about the dictionary itself (00-database-...) are left out."""
    clean = {"gcide": gcide_article, "wordnet": wordnet_article, "plain": article_text}[source.style]
    for article in _articles(files, source.members, (".index", ".index.gz"), dictd_index):
        yield article if isinstance(article, Damage) else _document(article, clean)


def _document(article: Article, clean: Callable[[str, tuple[str, ...]], tuple[str, str]]) -> Record:
    try:
        headword, text = clean(decode(article.data), article.headwords)
    except Damage as damage:
        return damage.at(article.url)
    return Found(article.url, text, {"kind": "definition", "headword": headword})


def stardict_index(data: bytes) -> Iterator[tuple[str, int, int]]:
    """(headword, offset, size) of a StarDict .idx: NUL-ended UTF-8, then two big-endian 32-bit numbers."""
    position = 0
    while position < len(data):
        end = data.find(b"\0", position)
        if end < 0 or end + 9 > len(data):
            raise Damage("bad_dictionary", excerpt="the index ends inside an entry")
        offset, size = struct.unpack_from(">II", data, end + 1)
        yield data[position:end].decode("utf-8", "replace"), offset, size
        position = end + 9


def dictd_index(data: bytes) -> Iterator[tuple[str, int, int]]:
    """(headword, offset, size) of a dictd .index: tab-separated lines, numbers in base 64."""
    for line in data.split(b"\n"):
        fields = line.decode("utf-8", "replace").split("\t")
        if len(fields) < 3:
            continue
        try:
            offset, size = _base64(fields[1]), _base64(fields[2])
        except KeyError:
            raise Damage("bad_dictionary", excerpt=fields[0]) from None
        if not fields[0].lower().replace("-", "").startswith("00database") and not fields[0].startswith("00-"):
            yield fields[0], offset, size


def _base64(digits: str) -> int:
    number = 0
    for digit in digits[:12]:
        number = number * 64 + _DIGITS[digit]
    return number


def _articles(
    files: Sequence[UnitFile],
    members: tuple[str, ...],
    index_suffixes: tuple[str, ...],
    parse_index: Callable[[bytes], Iterator[tuple[str, int, int]]],
) -> Iterator[Article | Damage]:
    """All articles of all dictionaries of a unit. The packages are read twice: first the indexes, then the articles."""
    indexes: dict[str, list[Entry]] = {}
    for file in input_files(files, members):
        if isinstance(file, Damage) or not file.path.endswith(index_suffixes):
            continue
        try:
            indexes[_stem(file.url)] = _entries(parse_index(read_whole(file.open(), MAX_INDEX_BYTES)))
        except Damage as damage:
            yield damage.at(file.url)
    for file in input_files(files, members):
        if isinstance(file, Damage):
            yield file
        elif file.path.endswith((".dict", ".dict.dz")):
            entries = indexes.get(_stem(file.url))
            if entries is None:
                yield Damage("bad_dictionary", file.url, excerpt="no index that can be read belongs to this file")
            else:
                yield from _slices(file.open(), entries, file.url)


def _stem(url: str) -> str:
    folder, _, name = url.rpartition("/")
    return f"{folder}/{name.split('.')[0]}"


def _entries(index: Iterator[tuple[str, int, int]]) -> list[Entry]:
    """Articles in the order of the stream, each with all its headwords in the order of the index."""
    headwords: dict[tuple[int, int], dict[str, None]] = {}
    for headword, offset, size in index:
        headwords.setdefault((offset, size), {})[headword] = None
    return sorted(Entry(offset, size, tuple(words)) for (offset, size), words in headwords.items())


def _slices(stream: Guarded, entries: list[Entry], url: str) -> Iterator[Article | Damage]:
    """The bytes of each entry, in one pass over the stream. Entries that overlap, or lie beyond its end, are damage."""
    buffer, start = b"", 0
    for number, entry in enumerate(entries):
        where = f"{url}#{entry.offset}"
        if entry.size > MAX_DOCUMENT_BYTES:
            yield Damage("too_large", where, value=entry.size, threshold=MAX_DOCUMENT_BYTES)
            continue
        if entry.offset < start:
            yield Damage("bad_dictionary", where, excerpt="overlaps the article before it")
            continue
        pieces = [buffer]
        have = start + len(buffer)
        try:
            while have < entry.offset + entry.size:
                data = stream.read(CHUNK)
                if not data:
                    yield Damage("truncated", where, value=len(entries) - number)
                    return
                have += len(data)
                if have <= entry.offset:
                    pieces, start = [], have
                else:
                    pieces.append(data)
        except Damage as damage:
            damage.value = len(entries) - number
            yield damage.at(where)
            return
        joined = b"".join(pieces)
        first = entry.offset - start
        yield Article(where, entry.headwords, joined[first : first + entry.size])
        buffer, start = joined[first + entry.size :], entry.offset + entry.size
