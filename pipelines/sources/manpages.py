"""Manual pages as documents."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipelines.sources.config import ManPagesSource
from pipelines.sources.files import UnitFile, input_files
from pipelines.sources.pages import page_key
from pipelines.sources.records import Damage, Found, Record
from pipelines.sources.roff import roff_text
from pipelines.sources.streams import decode

_SPDX = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]+)")


def read_manpages(source: ManPagesSource, files: Sequence[UnitFile]) -> Iterator[Record]:
    """One document a page. A page that names its own licence (SPDX-License-Identifier) keeps it."""
    for file in input_files(files, source.members):
        if isinstance(file, Damage):
            yield file
            continue
        try:
            roff = decode(file.read(), declared=True)
        except Damage as damage:
            yield damage.at(file.url)
            continue
        title, text = roff_text(roff, source.drop_sections)
        license = _SPDX.search(roff[:4096])
        yield Found(
            file.url,
            text,
            {"kind": "page", "title": title},
            page=page_key(source.collection, file.path),
            license=license.group(1).strip() if license else None,
        )
