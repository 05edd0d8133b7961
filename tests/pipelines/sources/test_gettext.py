from __future__ import annotations

import gettext
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources.gettext import catalogue, without_accelerators
from pipelines.sources.records import Damage
from tests.pipelines.sources.builders import mo_bytes, read, source, write_all

MESSAGES = {
    "Open the file": "Ouvrir le fichier",
    "menu\x04_Save as…": "_Enregistrer sous…",
    "one page\0%d pages": "une page\0%d pages de texte",
    "OK": "OK",
    "same words": "same words",
    "two\nlines here": "deux\nlignes ici",
}


@pytest.mark.parametrize("order", ["<", ">"])
def test_documents_of_messages(tmp_path: Path, order: str) -> None:
    (path,) = write_all(tmp_path, {"a.mo": mo_bytes(MESSAGES, order)})
    (document,), damaged = read(source("gettext"), path)
    assert not damaged
    pairs = set(zip(document.text.split("\n"), (document.translation or "").split("\n"), strict=True))
    assert pairs == {
        ("Ouvrir le fichier", "Open the file"),
        ("Enregistrer sous…", "Save as…"),
        ("une page", "one page"),
        ("deux lignes ici", "two lines here"),
    }


def test_groups_of_messages(tmp_path: Path) -> None:
    messages = {f"message number {number:03d}": f"message numéro {number:03d}" for number in range(70)}
    (path,) = write_all(tmp_path, {"a.mo": mo_bytes(messages)})
    found, _ = read(source("gettext", messages_per_document=30), path)
    assert [document.text.count("\n") + 1 for document in found] == [30, 30, 10]
    assert len({document.url for document in found}) == 3


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x04"), min_size=1, max_size=20)


@given(st.dictionaries(words, words, max_size=8))
def test_agrees_with_the_standard_library(messages: dict[str, str]) -> None:
    data = mo_bytes(messages)
    expected = gettext.GNUTranslations(io.BytesIO(data))
    found = dict(catalogue(data))
    assert found == messages
    assert all(expected.gettext(original) == translated for original, translated in found.items())


@pytest.mark.parametrize("data", [b"", b"\xde\x12\x04\x95", mo_bytes(MESSAGES)[:200], mo_bytes(MESSAGES)[:8] + b"\xff" * 40])
def test_damaged_catalogues(data: bytes) -> None:
    with pytest.raises(Damage) as damage:
        list(catalogue(data))
    assert damage.value.reason == "bad_catalogue"


def test_accelerators() -> None:
    assert without_accelerators("_Fichier", "_File") == ("Fichier", "File")
    assert without_accelerators("~Édition", "~Edit") == ("Édition", "Edit")
    assert without_accelerators("nom_de_champ", "field_name") == ("nom_de_champ", "field_name")
    assert without_accelerators("Pain & sel", "Bread & salt") == ("Pain & sel", "Bread & salt")
