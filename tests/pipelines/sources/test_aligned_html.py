from __future__ import annotations

from pathlib import Path

from pipelines.sources.config import Source
from pipelines.sources.files import UnitFile
from tests.pipelines.sources.builders import deb_bytes, read, source, write_all

FR = "<h1>Le pain</h1><p>Mélanger la farine.</p><pre>x = 1</pre><h2>Cuisson</h2><p>Cuire une heure.</p><p>LibreOffice</p>"
EN = "<h1>Bread</h1><p>Mix the flour.</p><pre>x = 2</pre><h2>Baking</h2><p>Bake for an hour.</p><p>LibreOffice</p>"


def package(tmp_path: Path, **pages: str) -> Path:
    members = {f"usr/{name.replace('_', '/')}.html": page.encode() for name, page in pages.items()}
    return write_all(tmp_path, {"essai_1_all.deb": deb_bytes(members)})[0]


def aligned() -> Source:
    return source("aligned_html", packages=["essai"], members=["usr/fr/*"], translation_members=["usr/en/*"], translation_lang="en")


def test_blocks_at_the_same_place_are_translations(tmp_path: Path) -> None:
    (document,), damaged = read(aligned(), package(tmp_path, fr_a=FR, en_a=EN))
    assert not damaged
    assert document.text == "Le pain\nMélanger la farine.\nCuisson\nCuire une heure."
    assert document.translation == "Bread\nMix the flour.\nBaking\nBake for an hour."
    assert document.page == "essai:usr/a.html"
    assert document.url == "deb://essai/usr/fr/a.html#fr-en"


def test_pages_of_another_structure_are_aligned_by_section(tmp_path: Path) -> None:
    longer = EN.replace("<p>Mix the flour.</p>", "<p>Mix the flour.</p><p>Wait.</p>")
    (document,), _ = read(aligned(), package(tmp_path, fr_a=FR, en_a=longer))
    assert document.text == "Cuisson\nCuire une heure."
    assert document.translation == "Baking\nBake for an hour."


def test_what_gives_no_pair_is_in_the_ledger(tmp_path: Path) -> None:
    pages = {"fr_a": FR, "en_a": "<p>All other.</p>", "fr_b": FR, "fr_c": EN, "en_c": EN, "en_d": EN}
    found, damaged = read(aligned(), package(tmp_path, **pages))
    assert not found
    assert sorted((damage.url[-6:], damage.reason) for damage in damaged) == [
        ("a.html", "unaligned"),
        ("b.html", "unpaired"),
        ("c.html", "untranslated"),
    ]


def test_local_folders(tmp_path: Path) -> None:
    one, other = write_all(tmp_path, {"fr/guide/a.html": FR.encode(), "en/guide/a.html": EN.encode()})
    wanted = source("aligned_html", paths=["fr"], translation_paths=["en"], translation_lang="en")
    files = [UnitFile(str(one), "guide/a.html"), UnitFile(str(other), "guide/a.html", True)]
    (document,), _ = read(wanted, *files)
    assert (document.translation or "").startswith("Bread\n")
