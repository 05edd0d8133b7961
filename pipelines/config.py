"""Recipe sections of the data side: what decides which text is kept and how often it is seen.

The `sources` section is in `pipelines/sources/config.py`.
"""

from __future__ import annotations

from pydantic import Field

from cluster.config import Section

STREAMS = ("fr", "en", "code", "parallel")


class LanguageThresholds(Section):
    """Gopher quality rules (Rae et al. 2021, arXiv 2112.11446, table A1) and the language-id cut for one language."""

    langid_min: float = Field(0.65, ge=0, le=1, description="lowest fastText lid.176 score of the declared language")
    min_words: int = Field(50, ge=0)
    max_words: int = Field(100_000, ge=1)
    min_mean_word_length: float = Field(3.0, ge=0)
    max_mean_word_length: float = Field(10.0, ge=0)
    max_symbol_ratio: float = Field(0.1, ge=0, description="'#' and ellipses per word, each")
    max_bullet_lines: float = Field(0.9, ge=0, le=1)
    max_ellipsis_lines: float = Field(0.3, ge=0, le=1)
    min_alphabetic_words: float = Field(0.8, ge=0, le=1)
    min_stop_words: int = Field(2, ge=0, description="distinct stop words of the language's list")
    stop_words: tuple[str, ...] = ()


class MinHashConfig(Section):
    """Near-duplicate search: word shingles, b bands of r rows, and the true Jaccard a pair must reach to count."""

    shingle_words: int = Field(5, ge=1, le=20)
    bands: int = Field(14, ge=1, le=256)
    rows: int = Field(8, ge=1, le=64)
    min_jaccard: float = Field(0.8, gt=0, le=1)
    max_bucket: int = Field(1_000, ge=2, description="a larger bucket is split by a second hash before pairing")
    seed: int = 1


class CleanConfig(Section):
    """Thresholds by language; `bitext` rules apply to parallel data, code skips language and quality rules."""

    languages: dict[str, LanguageThresholds] = {}
    max_length_ratio: float = Field(3.0, ge=1, description="characters of one side of a parallel document to the other")
    minhash: MinHashConfig = MinHashConfig()
    heldout_share: float = Field(0.02, ge=0, lt=0.5, description="share of pages never trained on")
    max_source_loss: float = Field(0.95, gt=0, le=1, description="stop when dedup removes more than this of a source")


class MixConfig(Section):
    """Sampling ratio (epochs) by stream, overridden by source: how often each document is seen.

    A ratio of 4.09 shows each document four times and 9 % of them a fifth time (CroissantLLM, table 1).
    """

    ratios: dict[str, float] = {"fr": 1.0, "en": 1.0, "code": 1.0, "parallel": 1.0}
    sources: dict[str, float] = {}


class InstructionsConfig(Section):
    """How many chat examples each task may contribute, assembled from the clean documents."""

    max_examples: dict[str, int] = {}
    default_max_examples: int = Field(2_000, ge=0)
    max_chars: int = Field(2_000, ge=50, description="longer examples are skipped")
    heldout_share: float = Field(0.02, ge=0, lt=0.5)
    seed: int = 1


class ScoreConfig(Section):
    """The part of the cleaning settings that changes signals; thresholds do not."""

    minhash: MinHashConfig = MinHashConfig()
    stop_words: dict[str, tuple[str, ...]] = {}


class TokensConfig(Section):
    """Packing takes everything it needs from its inputs."""
