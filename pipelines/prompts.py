"""How a person asks for each task, in French and in English; `pick` chooses by hash, so every run asks the same way."""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

DEFINE: dict[str, tuple[str, ...]] = {
    "fr": (
        "Que signifie « {word} » ?",
        "Définis le mot « {word} ».",
        "Donne-moi la définition de {word}.",
        "Que veut dire {word} ?",
        "C'est quoi, « {word} » ?",
        "Quel est le sens du mot {word} ?",
    ),
    "en": (
        'What does "{word}" mean?',
        'Define the word "{word}".',
        "Give me the definition of {word}.",
        "What is the meaning of {word}?",
        "{word}: what is that?",
        'How would you define "{word}"?',
    ),
}

SUMMARISE: dict[str, tuple[str, ...]] = {
    "fr": (
        "Résume en une ligne la description de ce logiciel :\n\n{text}",
        "Voici la description d'un paquet. Dis en quelques mots ce que c'est.\n\n{text}",
        "{text}\n\nRésume ce texte en une courte phrase.",
        "De quoi s'agit-il, en une ligne ?\n\n{text}",
        "Trouve un titre court pour cette description :\n\n{text}",
    ),
    "en": (
        "Sum up the description of this software in one line:\n\n{text}",
        "Here is the description of a package. Say in a few words what it is.\n\n{text}",
        "{text}\n\nSummarise this text in one short sentence.",
        "What is this about, in one line?\n\n{text}",
        "Find a short title for this description:\n\n{text}",
    ),
}

EXPLAIN: dict[str, tuple[str, ...]] = {
    "fr": (
        "Explique-moi : {title}",
        "J'ai besoin d'aide sur ce sujet : {title}",
        "Que dit la documentation sur « {title} » ?",
        "Que faut-il savoir sur « {title} » ?",
        "Écris une page d'aide intitulée « {title} ».",
    ),
    "en": (
        "Explain this to me: {title}",
        "I need help with this topic: {title}",
        'What does the documentation say about "{title}"?',
        'What should I know about "{title}"?',
        'Write a help page called "{title}".',
    ),
}

TRANSLATE: dict[tuple[str, str], tuple[str, ...]] = {
    ("fr", "en"): (
        "Traduis en anglais :\n\n{text}",
        "Comment dit-on en anglais : {text}",
        "Peux-tu traduire cette phrase en anglais ?\n\n{text}",
        "{text}\n\nTraduis ce texte du français vers l'anglais.",
        "Donne la traduction anglaise : {text}",
    ),
    ("fr", "fr"): (
        "Traduis en français :\n\n{text}",
        "Comment dit-on en français : {text}",
        "Peux-tu traduire cette phrase en français ?\n\n{text}",
        "{text}\n\nTraduis ce texte de l'anglais vers le français.",
        "Donne la traduction française : {text}",
    ),
    ("en", "en"): (
        "Translate into English:\n\n{text}",
        "How do you say this in English: {text}",
        "Could you translate this French sentence into English?\n\n{text}",
        "{text}\n\nTranslate this text from French to English.",
        "Give the English translation: {text}",
    ),
    ("en", "fr"): (
        "Translate into French:\n\n{text}",
        "How do you say this in French: {text}",
        "Could you translate this English sentence into French?\n\n{text}",
        "{text}\n\nTranslate this text from English to French.",
        "Give the French translation: {text}",
    ),
}
"""By (language of the person, language wanted)."""

AGAIN: dict[str, tuple[str, ...]] = {
    "fr": ("Et ceci :\n\n{text}", "Merci. Et cette phrase : {text}", "La même chose pour :\n\n{text}", "La suite : {text}"),
    "en": ("And this:\n\n{text}", "Thanks. And this sentence: {text}", "The same for:\n\n{text}", "The next one: {text}"),
}

TRANSLATE_ANSWER: dict[str, tuple[str, ...]] = {
    "fr": (
        "Traduis ta réponse en anglais.",
        "Peux-tu redonner cette réponse en anglais ?",
        "Et en anglais, s'il te plaît ?",
        "Traduis la réponse en anglais, s'il te plaît.",
    ),
    "en": (
        "Translate your answer into French.",
        "Can you give me that answer in French?",
        "And in French, please?",
        "Please translate the answer into French.",
    ),
}
"""By the language of the person and of the first answer."""


def pick(choices: Sequence[str], key: int, use: str) -> str:
    """One of the choices, by the example's key and what the choice is for."""
    return choices[xxhash.xxh3_64_intdigest(f"{key}:{use}".encode()) % len(choices)]
