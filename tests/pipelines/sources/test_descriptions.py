from __future__ import annotations

from pathlib import Path

from pipelines.sources.descriptions import unwrap
from pipelines.sources.files import UnitFile
from tests.pipelines.sources.builders import read, source, write_all

FR = """Package: pain
Description-md5: 11
Description-fr: four à pain
 Ce paquet cuit
 le pain.
 .
 Il sait :
  – pétrir ;
  – cuire
    longtemps.

Package: vide
Description-md5: 22

Package: sel
Description-md5: 33
Description-fr: du sel

Package: seul
Description-md5: 44
Description-fr: seul ici

Package: pain
Description-md5: 11
Description-fr: four à pain
"""
EN = """Package: pain
Description-md5: 11
Description-en: bread oven
 This package bakes bread.
 .
 It can:
  * knead;
  * bake for long.

Package: sel
Description-md5: 33
Description-en: some salt
 With more to say.
"""


def test_descriptions_in_one_language(tmp_path: Path) -> None:
    (path,) = write_all(tmp_path, {"Translation-fr": FR.encode()})
    found, damaged = read(source("descriptions"), path)
    assert found[0].text == "four à pain\nCe paquet cuit le pain.\nIl sait :\n– pétrir ;\n– cuire longtemps."
    assert found[0].meta == {"kind": "description", "package": "pain", "short": "four à pain"}
    assert found[0].page == "debian-description:11"
    assert [document.url for document in found] == [
        "apt://descriptions/fr/pain/11",
        "apt://descriptions/fr/sel/33",
        "apt://descriptions/fr/seul/44",
    ]
    assert [damage.reason for damage in damaged] == ["empty", "repeated"]


def test_descriptions_in_two_languages(tmp_path: Path) -> None:
    one, other = write_all(tmp_path, {"Translation-fr": FR.encode(), "Translation-en": EN.encode()})
    wanted = source("descriptions", paths=["a"], translation_paths=["b"], translation_lang="en")
    found, damaged = read(wanted, UnitFile(str(one), "Translation-fr"), UnitFile(str(other), "Translation-en", True))
    (document,) = found
    assert document.text.split("\n") == ["four à pain", "Ce paquet cuit le pain.", "Il sait :", "– pétrir ;", "– cuire longtemps."]
    assert (document.translation or "").split("\n") == [
        "bread oven",
        "This package bakes bread.",
        "It can:",
        "* knead;",
        "* bake for long.",
    ]
    assert document.page == "debian-description:11"
    assert [damage.reason for damage in damaged] == ["empty", "repeated", "unaligned", "unpaired"]


def test_invalid_bytes_cost_one_description(tmp_path: Path) -> None:
    (path,) = write_all(tmp_path, {"Translation-fr": FR.encode().replace(b"four", b"f\xe9ur")})
    found, damaged = read(source("descriptions"), path)
    assert len(found) == 2
    assert [damage.reason for damage in damaged] == ["invalid_utf8", "empty", "invalid_utf8"]


def test_unwrap_joins_lines_and_keeps_items() -> None:
    assert unwrap([" un", " deux", " .", "  * a", "    b", "  1. c"]) == ["un deux", "* a b\n1. c"]
