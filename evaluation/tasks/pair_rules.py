"""Rules that break one grammatical constraint of a sentence, French and English.

A sentence is a list of tokens that join back to it. A rule looks at the word at one position and returns the tokens of the
broken sentence, or None where it doesn't apply. What a rule must know about nouns comes from training text (`Lexicon`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

LETTERS = "A-Za-zÀ-ÖØ-öø-ÿŒœ"
TOKEN = re.compile(rf"[{LETTERS}]+|[^{LETTERS}]+")
_LOWER = "a-zà-öø-ÿœ"
_FRENCH_NOUN = re.compile(rf"\b([Uu]ne?|[Ll][ea]|[Cc]e(?:tte)?) ([{_LOWER}]{{3,}})(?![{_LOWER}'’-])")
_ENGLISH_NOUN = re.compile(r"\b[Aa]n? ([a-z]{3,})(?![a-z'’-])")

Tokens = list[str]
Rule = Callable[[Tokens, int, "Lexicon"], "Tokens | None"]


def tokenise(sentence: str) -> Tokens:
    """Runs of letters and runs of everything else, in order; they join back to the sentence."""
    return TOKEN.findall(sentence)


@dataclass
class Lexicon:
    """What training text shows: `gender` (m or f) of French words that only ever follow determiners of one gender, English
    `singular`s seen both after a/an and with a final s, and how often each word occurs."""

    words: Counter[str] = field(default_factory=Counter)
    gender: dict[str, str] = field(default_factory=dict)
    singulars: set[str] = field(default_factory=set)


def french_lexicon(texts: Iterable[str], words: Counter[str]) -> Lexicon:
    """A word has a gender when it was seen twice or more after un/une, never after the other one, and at most one time in
    fifty after the other le/la or ce/cette (before a verb, le and la are pronouns)."""
    seen: Counter[tuple[str, str]] = Counter()
    for text in texts:
        seen.update((determiner.lower(), noun) for determiner, noun in _FRENCH_NOUN.findall(text))
    gender: dict[str, str] = {}
    for noun in {noun for _, noun in seen}:
        indefinite = {"m": seen["un", noun], "f": seen["une", noun]}
        definite = {"m": seen["le", noun] + seen["ce", noun], "f": seen["la", noun] + seen["cette", noun]}
        for own, other in (("m", "f"), ("f", "m")):
            if indefinite[own] >= 2 and not indefinite[other] and 50 * definite[other] <= definite[own]:
                gender[noun] = own
    return Lexicon(words, gender=gender)


def english_lexicon(texts: Iterable[str], words: Counter[str]) -> Lexicon:
    """A singular was seen three times or more after a/an, and its form with a final s three times or more."""
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(_ENGLISH_NOUN.findall(text))
    singulars = {noun for noun, count in seen.items() if count >= 3 and words[f"{noun}s"] >= 3 and not noun.endswith("s")}
    return Lexicon(words, singulars=singulars)


def _next_word(tokens: Tokens, place: int) -> str:
    """The word after one blank, or nothing."""
    return tokens[place + 2] if place + 2 < len(tokens) and tokens[place + 1] == " " else ""


def _previous_word(tokens: Tokens, place: int) -> str:
    return tokens[place - 2].lower() if place >= 2 and tokens[place - 1] == " " else ""


def _with(tokens: Tokens, place: int, word: str) -> Tokens:
    """The tokens with another word at `place`, its first letter's case kept."""
    kept = word[0].upper() + word[1:] if tokens[place][0].isupper() else word
    return [*tokens[:place], kept, *tokens[place + 1 :]]


def _swap(pairs: Mapping[str, str]) -> dict[str, str]:
    return {**pairs, **{value: key for key, value in pairs.items()}}


FRENCH_GENDERED = _swap({"le": "la", "un": "une", "ce": "cette"})
FRENCH_VERB_NUMBER = _swap({"est": "sont", "était": "étaient", "peut": "peuvent", "doit": "doivent", "a": "ont", "fait": "font"})
FRENCH_ELISIONS = {"l": "le", "d": "de", "qu": "que", "n": "ne", "s": "se", "j": "je", "c": "ce"}
FRENCH_BEFORE_INFINITIVE = {
    "pour",
    "peut",
    "peuvent",
    "doit",
    "doivent",
    "pouvez",
    "devez",
    "va",
    "vont",
    "faut",
    "sans",
    "pourrait",
    "devrait",
}
FRENCH_PRESENT = {"être": "est", "avoir": "a", "faire": "fait", "mettre": "met", "prendre": "prend", "voir": "voit", "dire": "dit"}
ENGLISH_VERB_NUMBER = {**_swap({"is": "are", "was": "were", "has": "have"}), "does": "do"}
ENGLISH_MODALS = {"will", "can", "may", "must", "should", "would", "could", "might", "cannot"}
ENGLISH_PRESENT = {"be": "is", "have": "has"}


def french_gender(tokens: Tokens, place: int, lexicon: Lexicon) -> Tokens | None:
    """la maison -> le maison: the determiner's gender, before a word whose gender is known."""
    word, noun = tokens[place].lower(), _next_word(tokens, place)
    if word not in FRENCH_GENDERED or lexicon.gender.get(noun) != ("m" if word in ("le", "un", "ce") else "f"):
        return None
    return _with(tokens, place, FRENCH_GENDERED[word])


def french_determiner_number(tokens: Tokens, place: int, lexicon: Lexicon) -> Tokens | None:
    """la maison -> les maison, les maisons -> la maisons."""
    word, noun = tokens[place].lower(), _next_word(tokens, place)
    if word in ("le", "la") and lexicon.gender.get(noun) == ("m" if word == "le" else "f") and noun[-1] not in "sxz":
        return _with(tokens, place, "les")
    if word == "les" and noun.endswith("s") and noun[:-1] in lexicon.gender:
        return _with(tokens, place, "le" if lexicon.gender[noun[:-1]] == "m" else "la")
    return None


def french_verb_number(tokens: Tokens, place: int, _: Lexicon) -> Tokens | None:
    """est -> sont and the like, in the third person, after a word and a blank."""
    word = tokens[place]
    if word not in FRENCH_VERB_NUMBER or not _previous_word(tokens, place) or not _next_word(tokens, place):
        return None
    return _with(tokens, place, FRENCH_VERB_NUMBER[word])


def french_elision(tokens: Tokens, place: int, _: Lexicon) -> Tokens | None:
    """l'arbre -> le arbre: the elided vowel written out before another."""
    word = tokens[place].lower()
    if word not in FRENCH_ELISIONS or place + 2 >= len(tokens) or tokens[place + 1] not in ("'", "’"):
        return None
    broken = _with(tokens, place, FRENCH_ELISIONS[word])
    broken[place + 1] = " "
    return broken


def french_verb_form(tokens: Tokens, place: int, lexicon: Lexicon) -> Tokens | None:
    """pour afficher -> pour affiche: the infinitive after a preposition or a modal."""
    word = tokens[place]
    if _previous_word(tokens, place) not in FRENCH_BEFORE_INFINITIVE:
        return None
    if word in FRENCH_PRESENT:
        return _with(tokens, place, FRENCH_PRESENT[word])
    present = word[:-1]
    return _with(tokens, place, present) if word.endswith("er") and word.islower() and lexicon.words[present] >= 2 else None


def english_article(tokens: Tokens, place: int, _: Lexicon) -> Tokens | None:
    """a file -> an file, an error -> a error."""
    word = tokens[place].lower() if place == 0 else tokens[place]
    if word not in ("a", "an") or not _next_word(tokens, place)[:1].islower():
        return None
    return _with(tokens, place, "an" if word == "a" else "a")


def english_verb_number(tokens: Tokens, place: int, _: Lexicon) -> Tokens | None:
    """is -> are and the like, after a word and a blank (not after a modal)."""
    word = tokens[place]
    if (
        word not in ENGLISH_VERB_NUMBER
        or not _next_word(tokens, place)
        or _previous_word(tokens, place) in {"", "to", "not", *ENGLISH_MODALS}
    ):
        return None
    return _with(tokens, place, ENGLISH_VERB_NUMBER[word])


def english_demonstrative(tokens: Tokens, place: int, lexicon: Lexicon) -> Tokens | None:
    """this file -> these file, these files -> this files."""
    word, noun = tokens[place].lower(), _next_word(tokens, place)
    if word == "this" and noun in lexicon.singulars:
        return _with(tokens, place, "these")
    if word in ("these", "those") and noun.endswith("s") and noun[:-1] in lexicon.singulars:
        return _with(tokens, place, "this" if word == "these" else "that")
    return None


def english_noun_number(tokens: Tokens, place: int, lexicon: Lexicon) -> Tokens | None:
    """a file -> a files."""
    if tokens[place] not in lexicon.singulars or _previous_word(tokens, place) not in ("a", "an", "this", "each", "every", "one"):
        return None
    return _with(tokens, place, f"{tokens[place]}s")


def english_verb_form(tokens: Tokens, place: int, _: Lexicon) -> Tokens | None:
    """to be -> to is, can have -> can has."""
    word = tokens[place]
    if word not in ENGLISH_PRESENT or _previous_word(tokens, place) not in {"to", *ENGLISH_MODALS}:
        return None
    return _with(tokens, place, ENGLISH_PRESENT[word])


def word_order(tokens: Tokens, place: int, _: Lexicon) -> Tokens | None:
    """Two adjacent words of two letters or more change places."""
    word, after = tokens[place], _next_word(tokens, place)
    if place == 0 or word == after or not (word.islower() and after.islower() and len(word) > 1 and len(after) > 1):
        return None
    return [*tokens[:place], after, " ", word, *tokens[place + 3 :]]


RULES: dict[str, dict[str, Rule]] = {
    "fr": {
        "determiner_gender": french_gender,
        "determiner_number": french_determiner_number,
        "verb_number": french_verb_number,
        "elision": french_elision,
        "verb_form": french_verb_form,
        "word_order": word_order,
    },
    "en": {
        "article": english_article,
        "verb_number": english_verb_number,
        "demonstrative_number": english_demonstrative,
        "noun_number": english_noun_number,
        "verb_form": english_verb_form,
        "word_order": word_order,
    },
}
"""By language and phenomenon. The broken sentence is ungrammatical by construction, except that swapped words may
happen to be fine in either order and a verb's number may be open after a collective noun; both are rare."""

LEXICONS: dict[str, Callable[[Iterable[str], Counter[str]], Lexicon]] = {"fr": french_lexicon, "en": english_lexicon}
