from __future__ import annotations

from pathlib import Path

from tests.pipelines.sources.builders import deb_bytes, dictd_files, read, source, stardict_files, write_all

MOTS = [
    (["POMME"], "<i><small>(po-m') s. f.</small></i>\n\n<b>1°</b> Fruit.\n\n<b><big>HISTORIQUE</big></b>\n\n    XIIe s. pume\n"),
    (["ECOLE", "ÉCOLE"], "<i><small>(é-ko-l') s. f.</small></i>\n    Lieu où l'on apprend."),
    (["VIDE"], "<i><small>(vi-d') adj.</small></i>\n\n<b><big>ÉTYMOLOGIE</big></b>\n\n    Lat.\n"),
]


def test_stardict_from_a_package(tmp_path: Path) -> None:
    members = {f"usr/share/{name}": data for name, data in stardict_files(MOTS).items()}
    (path,) = write_all(tmp_path, {"essai_1_all.deb": deb_bytes(members)})
    found, damaged = read(source("stardict", packages=["essai"], drop_sections=["HISTORIQUE", "ÉTYMOLOGIE"]), path)
    assert not damaged
    assert [(document.text, document.meta["headword"]) for document in found] == [
        ("pomme, s. f.\n1° Fruit.", "pomme"),
        ("école, s. f.\nLieu où l'on apprend.", "école"),
        ("", "vide"),
    ]
    assert found[0].url == "deb://essai/usr/share/mots.dict.dz#0"
    assert found[0].meta["kind"] == "definition"


def test_dictd_skips_what_is_about_the_dictionary(tmp_path: Path) -> None:
    words = [(["00-database-short", "00databaseurl"], "A dictionary"), (["bread", "loaf"], "bread\n    n 1: baked dough\n")]
    found, damaged = read(source("dictd", style="wordnet", lang="en"), *write_all(tmp_path, dictd_files(words)))
    assert not damaged
    assert [document.text for document in found] == ["bread (noun)\n1. baked dough."]


def test_truncated_articles_and_missing_index(tmp_path: Path) -> None:
    many = [([f"MOT{number}"], f"Article {number} " + "texte " * 5000) for number in range(50)]
    files = stardict_files(many)
    files["mots.dict.dz"] = files["mots.dict.dz"][: len(files["mots.dict.dz"]) // 2]
    found, damaged = read(source("stardict"), *write_all(tmp_path / "a", files))
    assert 0 < len(found) < 50
    assert [damage.reason for damage in damaged] == ["truncated"]
    assert damaged[0].value == 50 - len(found)
    del files["mots.idx"]
    found, damaged = read(source("stardict"), *write_all(tmp_path / "b", files))
    assert not found
    assert [damage.reason for damage in damaged] == ["bad_dictionary"]


def test_articles_that_overlap_or_are_not_text(tmp_path: Path) -> None:
    files = dictd_files([(["a"], "un"), (["b"], "deux"), (["c"], "trois")])
    files["words.index"] += b"x\tB\tC\nz\t!\tA\n"
    assert [damage.reason for damage in read(source("dictd"), *write_all(tmp_path / "a", files))[1]] == ["bad_dictionary"] * 2
    files["words.index"] = b"a\tA\tC\nx\tB\tC\nc\tG\tF\n"
    found, damaged = read(source("dictd"), *write_all(tmp_path / "b", files))
    assert [document.text for document in found] == ["un", "trois"]
    assert [damage.reason for damage in damaged] == ["bad_dictionary"]
