"""Dictionary articles as readable text: the notations of XMLittré (Pango markup), GCIDE and WordNet.

Each function takes an article and the headwords that lead to it and returns (headword, text).
"""

from __future__ import annotations

import difflib
import html
import re
import unicodedata
from collections.abc import Sequence

_TAG = re.compile(r"<[^<>]{0,200}>")
_SECTION = re.compile(r"<b><big>([^<]*)</big></b>")
_HEAD = re.compile(r"^\s*<i><small>(.*?)</small></i>\s*", re.DOTALL)
_PRONUNCIATION = re.compile(r"^\(([^()]*)\)\s*")
_TWO_STOPS = re.compile(r"(?<!\.)\.\.(?!\.)")
_HOMOGRAPH = re.compile(r"\.\d+$")


def pango_article(article: str, headwords: tuple[str, ...], drop: tuple[str, ...] = ()) -> tuple[str, str]:
    """A StarDict article with Pango markup: the headword with its grammar on the first line, then the senses.

    Sections (`<b><big>TITLE</big></b>`) whose title is in `drop` are left out.
    """
    parts = _SECTION.split(article)
    kept = [parts[0]]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title.strip() not in drop:
            kept.append(f"\n\n{title}\n{body}")
    body = "".join(kept)
    head = _HEAD.match(body)
    grammar = _TAG.sub("", head.group(1)) if head else ""
    sounds = _PRONUNCIATION.match(grammar)
    headword = choose_headword(headwords, sounds.group(1) if sounds else "")
    grammar = " ".join(_PRONUNCIATION.sub("", grammar).split())
    body = html.unescape(_TAG.sub("", body[head.end() :] if head else body))
    lines = [line.strip() for line in body.split("\n")]
    text = _TWO_STOPS.sub(".", "\n".join(lines).strip("\n"))
    if not text:
        return headword, ""
    return headword, (f"{headword}, {html.unescape(grammar)}\n{text}" if grammar else f"{headword}\n{text}")


def choose_headword(headwords: Sequence[str], pronunciation: str = "") -> str:
    """The word an article is about, of all those that lead to it: not a spelling without accents where there is one with
    them, and the one that sounds most like the article's pronunciation."""
    words = list(dict.fromkeys(_HOMOGRAPH.sub("", word).strip() for word in headwords))
    accented = {_plain(word) for word in words if _plain(word) != word}
    words = [word for word in words if word not in accented] or words
    if len(words) > 1 and pronunciation:
        letters = _letters(pronunciation)
        words.sort(key=lambda word: -difflib.SequenceMatcher(None, _letters(word), letters, autojunk=False).ratio())
    return words[0].lower() if words and words[0].isupper() else (words[0] if words else "")


def _plain(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))


def _letters(word: str) -> str:
    return "".join(c for c in _plain(word).lower() if c.isalpha())


_CREDIT = re.compile(
    r"\[(?:[^\[\]]*\b)?(?:1913 Webster|Webster 1913 Suppl|WordNet \d|WordNet sense|PJC|Century Dict|MW10|RP|RH|AS|RDH|CD)\b[^\[\]]*\]"
)
_BRACES = re.compile(r"\{([^{}]*)\}")
_SPELT = {
    "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "'e": "é", "`e": "è", "^e": "ê", '"e': "ë", "'a": "á", "`a": "à", "^a": "â", '"a': "ä",
    "'o": "ó", "^o": "ô", '"o': "ö", "'i": "í", "^i": "î", '"i': "ï", "'u": "ú", "`u": "ù", "^u": "û", '"u': "ü", ",c": "ç", "~n": "ñ",
    "eth": "ð", "thorn": "þ", "deg": "°", "sect": "§", "pound": "£", "frac12": "½", "frac14": "¼",
}  # fmt: skip
_ENTITY = re.compile(r"\[([^\[\]\s]{2,6})\]")
_SYLLABLES = re.compile(r"[*\"`|]")
_QUOTED = re.compile(r"\s*--(?=[A-Z(])")
_ITEM = re.compile(r"\s*(?:\d+\.|\([a-z]\)|Note:|Syn:|Usage:|--)\s")
WRAP_COLUMN = 64


def gcide_article(article: str, headwords: tuple[str, ...]) -> tuple[str, str]:
    """An article of the Collaborative International Dictionary of English, without pronunciation, etymology and credits."""
    head, *body = unwrap_lines(article.split("\n")) or [""]
    while body and head.count("[") > head.count("]"):
        head += f" {body.pop(0)}"
    word, sound, grammar = head.partition(" \\")
    headword = " ".join((word if sound else headwords[0]).split())
    grammar = " ".join(_without_brackets(_readable(grammar.rpartition("\\")[2] if sound else "")).split())
    first = ", ".join(piece for piece in (headword, grammar.strip(" ,;")) if piece)
    lines = [line for paragraph in body if (line := _readable(paragraph))]
    return headword, "\n".join([first, *lines]) if lines or len(grammar.split()) > 4 else ""


def _readable(paragraph: str) -> str:
    """A paragraph without credits, with its notation of letters, links and quotations as plain text."""
    text = _CREDIT.sub("", paragraph)
    text = _ENTITY.sub(lambda match: _SPELT.get(match.group(1), match.group(0)), text)
    text = _BRACES.sub(lambda match: _SYLLABLES.sub("", match.group(1)), text)
    return " ".join(_QUOTED.sub(" — ", text).split())


def _without_brackets(line: str) -> str:
    """A headword line up to its etymology or inflections, which stand in (nested) square brackets or parentheses."""
    kept, depth = [], 0
    for character in line:
        if character in "[(":
            depth += 1
        elif character in "])":
            depth = max(depth - 1, 0)
        elif not depth:
            kept.append(character)
    return "".join(kept)


_SENSE = re.compile(r"^(?:(n|v|adj|adv)\s+)?(\d+):\s*(.*)$")
_LINKS = re.compile(r"\s*\[(syn|ant|also):\s*([^\[\]]*)\]")
_CLASSES = {"n": "noun", "v": "verb", "adj": "adjective", "adv": "adverb"}


def wordnet_article(article: str, headwords: tuple[str, ...]) -> tuple[str, str]:
    """An article of WordNet in dictd form: numbered senses by word class, with synonyms and antonyms in words."""
    lines = article.strip("\n").split("\n")
    headword = lines[0].strip() or headwords[0]
    senses: list[str] = []
    for line in lines[1:]:
        content = line.strip()
        if _SENSE.match(content) or not senses:
            senses.append(content)
        elif senses[-1].endswith("-"):
            senses[-1] += content
        else:
            senses[-1] += f" {content}"
    text = [headword]
    for sense in senses:
        match = _SENSE.match(sense)
        word_class, number, gloss = match.groups() if match else (None, "", sense)
        links = _LINKS.findall(gloss)
        gloss = _BRACES.sub(r"\1", _LINKS.sub("", gloss)).strip()
        for name, listed in links:
            words = [word for word in re.findall(r"\{([^{}]*)\}", listed) if word.lower() != headword.lower()]
            if words:
                label = {"syn": "Synonyms", "ant": "Antonyms", "also": "Also"}[name]
                gloss += f". {label if len(words) > 1 else label.rstrip('s')}: {', '.join(words)}"
        if word_class:
            text.append(f"({_CLASSES[word_class]})")
        text.append(f"{number}. {gloss}." if number else gloss)
    return headword, "\n".join(text).replace("\n(", " (", 1) if len(text) > 1 else ""


def article_text(article: str, headwords: tuple[str, ...]) -> tuple[str, str]:
    """An article of any other dictd dictionary, with its line breaks."""
    lines = [line.strip() for line in article.strip("\n").split("\n")]
    return headwords[0], "\n".join(lines)


def unwrap_lines(lines: Sequence[str]) -> list[str]:
    """Lines broken at a column joined again; a line that ends early, a blank line and a numbered item end a paragraph."""
    paragraphs: list[str] = []
    previous: str | None = None
    for line in lines:
        content = line.strip()
        if not content:
            previous = None
            continue
        first_word = content.split(" ", 1)[0]
        wrapped = previous is not None and len(previous.rstrip()) + 1 + len(first_word) > WRAP_COLUMN and not _ITEM.match(line)
        if wrapped:
            paragraphs[-1] += f" {content}"
        else:
            paragraphs.append(content)
        previous = line
    return paragraphs
