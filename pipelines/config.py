"""Recipe sections of the data side: what decides which text is kept and how often it is seen.

The `sources` section is in `pipelines/sources/config.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from cluster.config import Section
from pipelines.rules.stop_words import ENGLISH, FRENCH

STREAMS = ("fr", "en", "code", "parallel")

Ratio = Annotated[float, Field(ge=0, le=1000)]

Task = Literal["faq", "translate", "define", "summarise", "explain", "composed_faq", "composed_translate"]


class LanguageThresholds(Section):
    """Gopher quality rules (Rae et al. 2021, arXiv 2112.11446, table A1) and the language-id cut for one language."""

    langid_min: float = Field(default=0.65, ge=0, le=1, description="lowest fastText lid.176 score of the declared language")
    min_words: int = Field(default=50, ge=0)
    max_words: int = Field(default=100_000, ge=1)
    min_mean_word_length: float = Field(default=3.0, ge=0)
    max_mean_word_length: float = Field(default=10.0, ge=0)
    max_symbol_ratio: float = Field(default=0.1, ge=0, description="'#' and ellipses per word, each")
    max_bullet_lines: float = Field(default=0.9, ge=0, le=1)
    max_ellipsis_lines: float = Field(default=0.3, ge=0, le=1)
    min_alphabetic_words: float = Field(default=0.8, ge=0, le=1)
    min_stop_words: int = Field(default=2, ge=0, description="distinct stop words of the language's list")
    stop_words: tuple[str, ...] = ()


LANGUAGE_DEFAULTS: dict[str, dict[str, Any]] = {
    "en": {"stop_words": ENGLISH},
    "fr": {"stop_words": FRENCH, "min_mean_word_length": 2.0, "max_mean_word_length": 11.0, "min_alphabetic_words": 0.812},
}
"""What differs from `LanguageThresholds`' own defaults: Gopher for English, FineWeb-2's fra_Latn for French. The
language-id cut stays at 0.65 for both: FineWeb-2's 0.824 is a score of another model (GlotLID)."""


def default_thresholds(lang: str) -> LanguageThresholds:
    """Thresholds of a language whose recipe says nothing; a language without a known list needs no stop words."""
    return LanguageThresholds(**LANGUAGE_DEFAULTS.get(lang, {"min_stop_words": 0}))


class SignatureConfig(Section):
    """What a MinHash signature depends on: word shingles, b bands of r rows (b * r permutations), and a seed."""

    shingle_words: int = Field(default=5, ge=1, le=20)
    bands: int = Field(default=14, ge=1, le=256)
    rows: int = Field(default=8, ge=1, le=64)
    seed: int = Field(default=1, ge=0)


class MinHashConfig(SignatureConfig):
    """Near-duplicate search: the signature, and the true Jaccard of word shingles a pair must reach to count."""

    min_jaccard: float = Field(default=0.8, gt=0, le=1)
    max_bucket: int = Field(default=1_000, ge=2, description="a larger bucket is split by a second hash before pairing")


class ScoreConfig(Section):
    """The parts of `CleanConfig` that change signals; all other thresholds are decided later, from the signals."""

    minhash: SignatureConfig = SignatureConfig()
    stop_words: dict[str, tuple[str, ...]] = {"fr": FRENCH, "en": ENGLISH}


class CleanConfig(Section):
    """Thresholds by language; `bitext` rules apply to parallel data, code skips language and quality rules.

    A language given in part keeps the defaults of `default_thresholds` for the rest; French and English are always
    there; documents of a language that is not listed are removed.
    """

    languages: dict[str, LanguageThresholds] = {}
    max_length_ratio: float = Field(default=3.0, ge=1, description="characters of one side of a parallel document to the other")
    minhash: MinHashConfig = MinHashConfig()
    heldout_share: float = Field(default=0.02, ge=0, lt=0.5, description="share of pages never trained on")
    max_source_loss: float = Field(default=0.95, gt=0, le=1, description="stop when dedup removes more than this of a source")

    @field_validator("languages", mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known: dict[Any, Any] = {lang: {} for lang in LANGUAGE_DEFAULTS} | value
        return {
            lang: LANGUAGE_DEFAULTS.get(lang, {"min_stop_words": 0}) | given if isinstance(given, dict) else given
            for lang, given in known.items()
        }

    def score_config(self) -> ScoreConfig:
        """The section of the score stage that belongs to this one."""
        return ScoreConfig(minhash=self.minhash, stop_words={lang: rules.stop_words for lang, rules in self.languages.items()})


class MixConfig(Section):
    """Sampling ratio (epochs) by stream, overridden by source: how often each document is seen.

    A ratio of 4.09 shows each document four times and 9 % of them a fifth time (CroissantLLM, table 1); 0 drops it.
    """

    ratios: dict[str, Ratio] = {"fr": 1.0, "en": 1.0, "code": 1.0, "parallel": 1.0}
    sources: dict[str, Ratio] = {}


class InstructionsConfig(Section):
    """How many chat examples each task may contribute, assembled from the clean documents."""

    max_examples: dict[Task, Annotated[int, Field(ge=0)]] = {}
    default_max_examples: int = Field(default=2_000, ge=0, description="of every task that max_examples does not name")
    max_chars: int = Field(default=2_000, ge=50, description="longer examples are skipped")
    balance: bool = Field(default=True, description="as many examples in French as in English, where there are both")
    seed: int = 1


class TokensConfig(Section):
    """Packing takes everything it needs from its inputs."""
