from __future__ import annotations

import gzip
from pathlib import Path

from tests.pipelines.sources.builders import deb_bytes, read, source, write_all

PAGE = '.\\" SPDX-License-Identifier: GPL-2.0-or-later\n.TH A 1\n.SH NOM\na \\- rien\n.SH TRADUCTION\nPar moi.\n'


def test_pages_of_a_package(tmp_path: Path) -> None:
    members = {
        "usr/share/man/fr/man1/a.1.gz": gzip.compress(PAGE.encode()),
        "usr/share/man/fr/man1/b.1.gz": gzip.compress(b".SH NOM\nb\n")[:-9],
    }
    (path,) = write_all(tmp_path, {"essai_1_all.deb": deb_bytes(members)})
    found, damaged = read(source("manpages", packages=["essai"], drop_sections=["TRADUCTION"]), path)
    assert [(document.text, document.page, document.license) for document in found] == [
        ("NOM\n\na - rien", "man:usr/share/man/man1/a.1", "GPL-2.0-or-later")
    ]
    assert found[0].meta == {"kind": "page", "title": "a - rien"}
    assert [damage.reason for damage in damaged] == ["truncated"]
