"""Stop words that mark running text of a language, as the published pipelines list them."""

ENGLISH = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A1.1)."""

FRENCH = ("de", "la", "le", "et", "à", "en", "l'", "des", "du", "les", "est", "d'", "un", "une", "il", "dans", "par", "au")
"""FineWeb-2, configs/fra_Latn.yml. Elided words keep their apostrophe: `l'eau` reads as `l'` and `eau`."""
