"""Small self-made French, English, code and parallel documents for tests: sentences from a grammar, seeded.

The vocabulary is large enough that documents differ, small enough that a tiny model learns something.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

NOUNS = {
    "fr": [
        "le boulanger",
        "la meunière",
        "le voisin",
        "la boulangère",
        "un enfant",
        "le facteur",
        "la maîtresse",
        "le jardinier",
        "ma grand-mère",
        "l'apprenti",
    ],
    "en": [
        "the baker",
        "the miller",
        "the neighbour",
        "the teacher",
        "a child",
        "the postman",
        "the gardener",
        "my grandmother",
        "the apprentice",
        "the painter",
    ],
}
VERBS = {
    "fr": ["prépare", "regarde", "apporte", "choisit", "garde", "mélange", "vend", "goûte", "partage", "cherche"],
    "en": ["prepares", "watches", "brings", "chooses", "keeps", "mixes", "sells", "tastes", "shares", "looks for"],
}
OBJECTS = {
    "fr": [
        "la pâte",
        "le pain chaud",
        "une brioche dorée",
        "la farine",
        "le beurre frais",
        "les croissants",
        "un gâteau simple",
        "le levain",
        "la galette",
        "le panier",
    ],
    "en": [
        "the dough",
        "the warm bread",
        "a golden brioche",
        "the flour",
        "the fresh butter",
        "the croissants",
        "a simple cake",
        "the leaven",
        "the biscuit",
        "the basket",
    ],
}
PLACES = {
    "fr": [
        "dans la cuisine",
        "au marché",
        "près du fournil",
        "sur la place",
        "au bord de la rivière",
        "dans le village",
        "avec ses amis",
        "avant le lever du jour",
    ],
    "en": [
        "in the kitchen",
        "at the market",
        "near the bakehouse",
        "on the square",
        "by the river",
        "in the village",
        "with his friends",
        "before the break of day",
    ],
}
LINKS = {"fr": ["et", "mais", "puis", "car"], "en": ["and", "but", "then", "because"]}


def sentences(count: int, seed: int) -> list[dict[str, str]]:
    """`count` sentences with the same meaning in French and English."""
    chooser = random.Random(seed)
    made = []
    for _ in range(count):
        picks = [[chooser.randrange(len(table["fr"])) for table in (NOUNS, VERBS, OBJECTS, PLACES)] for _ in range(2)]
        link = chooser.randrange(len(LINKS["fr"]))
        made.append({lang: _sentence(lang, picks, link) for lang in ("fr", "en")})
    return made


def _sentence(lang: str, picks: list[list[int]], link: int) -> str:
    tables = (NOUNS, VERBS, OBJECTS, PLACES)
    clauses = [" ".join(table[lang][index] for table, index in zip(tables, pick, strict=True)) for pick in picks]
    text = f" {LINKS[lang][link]} ".join(clauses)
    return text[0].upper() + text[1:] + "."


def prose(lang: str, seed: int, count: int = 8) -> str:
    """One document of `count` sentences in `lang`, two a paragraph."""
    lines = [pair[lang] for pair in sentences(count, seed)]
    return "\n\n".join(" ".join(lines[at : at + 2]) for at in range(0, len(lines), 2))


def code(seed: int) -> str:
    """One small Python function."""
    chooser = random.Random(seed)
    name, unit, rest = chooser.choice(["weigh", "bake", "mix", "rest", "fold"]), chooser.randrange(2, 99), chooser.randrange(999)
    head = f'def {name}_{seed}(grams: int) -> int:\n    """Return grams after step {seed}."""\n'
    return f"{head}    total = grams * {unit}\n    return total + {rest}\n"


def write_corpus(folder: Path, documents: int = 120, seed: int = 7) -> None:
    """`fr.jsonl`, `en.jsonl`, `code.jsonl` and `parallel.jsonl` below `folder`, `documents` records each."""
    folder.mkdir(parents=True, exist_ok=True)
    for stream, base in (("fr", 0), ("en", 100_000), ("code", 200_000), ("parallel", 300_000)):
        records = [_record(stream, seed + base + number) for number in range(documents)]
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        (folder / f"{stream}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _record(stream: str, seed: int) -> dict[str, str]:
    if stream == "parallel":
        pairs = sentences(6, seed)
        return {"text": "\n".join(pair["fr"] for pair in pairs), "translation": "\n".join(pair["en"] for pair in pairs)}
    return {"text": code(seed) if stream == "code" else prose(stream, seed)}
