"""HTML pages as documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipelines.sources.blocks import Block, Page, page_text, parse_page
from pipelines.sources.config import HtmlSource
from pipelines.sources.files import UnitFile, input_files
from pipelines.sources.pages import page_key
from pipelines.sources.records import Damage, Found, Record
from pipelines.sources.streams import decode

_NUMBER = re.compile(r"^(?:[A-Z]|\d+)(?:\.\d+)*\.?\s+")


def read_html(source: HtmlSource, files: Sequence[UnitFile]) -> Iterator[Record]:
    """One document a page."""
    for file in input_files(files, source.members):
        if isinstance(file, Damage):
            yield file
            continue
        try:
            page = parse_page(decode(file.read(), declared=True), source.root, source.drop)
        except Damage as damage:
            yield damage.at(file.url)
            continue
        meta: dict[str, object] = {"kind": "page", "title": page.title}
        if source.faq and (pairs := questions(page)):
            meta = {"kind": "faq", "title": page.title, "pairs": pairs}
        shared = bool(source.collection) or file.packaged
        key = page_key(source.collection or source.name, file.path) if shared else ""
        yield Found(file.url, page_text(page.blocks), meta, page=key)


def questions(page: Page) -> list[dict[str, str]]:
    """The headings that end in a question mark, without their numbers, each with the text up to the next heading."""
    pairs: list[dict[str, str]] = []
    question, answer = "", []
    for block in (*page.blocks, Block("h1", "")):
        if not block.is_heading:
            answer.append(block)
            continue
        if question and answer:
            pairs.append({"question": question, "answer": page_text(answer)})
        question = _NUMBER.sub("", block.text) if block.text.endswith("?") else ""
        answer = []
    return pairs
