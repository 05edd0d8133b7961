"""Descriptions of Debian packages (`Translation-XX` lists), in one language or in two."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelines.sources.config import DescriptionsSource
from pipelines.sources.files import UnitFile, input_files
from pipelines.sources.records import Damage, Found, Record
from pipelines.sources.segments import parallel_text
from pipelines.sources.streams import decode, read_lines

_ITEM = re.compile(r"^\s{2,}(?:[-–—−‐*+•o]|\d+[.)])\s")
_FIELD = re.compile(r"^([A-Za-z0-9-]+):\s?(.*)")


@dataclass(frozen=True, slots=True)
class Description:
    """One package's description in one language. `key` is the MD5 of the original, the same in all languages."""

    url: str
    package: str
    key: str
    short: str
    paragraphs: tuple[str, ...]


def read_descriptions(source: DescriptionsSource, files: Sequence[UnitFile]) -> Iterator[Record]:
    """One document a description: the short line, then the paragraphs. With `translation_lang`, parallel documents."""
    if source.translation_lang is None:
        for item in _descriptions(files, source.lang):
            if isinstance(item, Damage):
                yield item
                continue
            meta = {"kind": "description", "package": item.package, "short": item.short}
            yield Found(item.url, "\n".join((item.short, *item.paragraphs)), meta, page=_page(item))
        return
    ours: dict[tuple[str, str], Description] = {}
    for item in _descriptions([file for file in files if not file.translation], source.lang):
        if isinstance(item, Damage):
            yield item
        else:
            ours[item.package, item.key] = item
    for item in _descriptions([file for file in files if file.translation], source.translation_lang):
        if not isinstance(item, Damage) and (one := ours.pop((item.package, item.key), None)) is not None:
            yield _pair(source, one, item)
    for place in sorted(ours):
        yield Damage("unpaired", ours[place].url, excerpt=ours[place].short)


def _pair(source: DescriptionsSource, one: Description, other: Description) -> Record:
    if len(one.paragraphs) != len(other.paragraphs):
        return Damage("unaligned", one.url, excerpt=one.short, value=len(one.paragraphs), threshold=len(other.paragraphs))
    pairs = [(one.short, other.short)]
    for left, right in zip(one.paragraphs, other.paragraphs, strict=True):
        items, others = left.split("\n"), right.split("\n")
        pairs += zip(items, others, strict=True) if len(items) == len(others) else [(left, right)]
    text, translation = parallel_text(pairs)
    if not text:
        return Damage("untranslated", one.url, excerpt=one.short)
    meta = {"kind": "parallel", "package": one.package}
    return Found(f"{one.url}#{source.lang}-{source.translation_lang}", text, meta, _page(one), translation)


def _page(item: Description) -> str:
    return f"debian-description:{item.key or item.package}"


def _descriptions(files: Sequence[UnitFile], lang: str) -> Iterator[Description | Damage]:
    """The paragraphs (stanzas) of the lists, one description each. Suites repeat each other's: `repeated`."""
    seen: set[tuple[str, str]] = set()
    for stanza in _stanzas(files, lang):
        if isinstance(stanza, Description):
            if (stanza.package, stanza.key) in seen:
                yield Damage("repeated", stanza.url, excerpt=stanza.short)
                continue
            seen.add((stanza.package, stanza.key))
        yield stanza


def _stanzas(files: Sequence[UnitFile], lang: str) -> Iterator[Description | Damage]:
    for file in input_files(files, ("**",)):
        if isinstance(file, Damage):
            yield file
            continue
        lines: list[bytes] = []
        for number, line in enumerate(read_lines(file.open()), 1):
            if isinstance(line, Damage):
                yield line.at(f"{file.url}#{number}")
            elif line.strip():
                lines.append(line)
            elif lines:
                yield _describe(lines, lang, f"{file.url}#{number}")
                lines = []
        if lines:
            yield _describe(lines, lang, f"{file.url}#end")


def _describe(lines: list[bytes], lang: str, where: str) -> Description | Damage:
    """One stanza: `Package`, `Description-md5` and `Description-XX`, whose first line is the short description."""
    try:
        text = decode(b"\n".join(lines))
    except Damage as damage:
        return damage.at(where)
    fields: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.split("\n"):
        if field := _FIELD.match(line):
            current = fields.setdefault(field.group(1).lower(), [])
            current.append(field.group(2))
        else:
            current.append(line)
    package = "".join(fields.get("package", [""])[:1]).strip()
    body = fields.get(f"description-{lang}") or fields.get("description")
    if not package or not body or not body[0].strip():
        return Damage("empty", where, excerpt=text, chars=len(text))
    key = "".join(fields.get("description-md5", [""])[:1]).strip()
    url = f"apt://descriptions/{lang}/{package}" + (f"/{key}" if key else "")
    return Description(url, package, key, " ".join(body[0].split()), tuple(unwrap(body[1:])))


def unwrap(lines: Sequence[str]) -> list[str]:
    """Paragraphs of a long description: wrapped lines joined, list items and indented lines on lines of their own.

    A line that holds only a dot is an empty line (Debian policy 5.6.13); items of one list are one paragraph.
    """
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        content = line[1:] if line[:1] in (" ", "\t") else line
        if not content.strip() or content.strip() == ".":
            paragraphs.append([])
        elif not paragraphs[-1] or _ITEM.match(line):
            paragraphs[-1].append(content.strip())
        else:
            paragraphs[-1][-1] += " " + content.strip()
    return ["\n".join(paragraph) for paragraph in paragraphs if paragraph]
