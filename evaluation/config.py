"""Recipe section of the evaluation suite."""

from __future__ import annotations

from pydantic import Field

from cluster.config import Section


class EvalConfig(Section):
    """What is measured and on how much. Held-out text never overlaps what any stage trained on."""

    tasks: tuple[str, ...] = ("bits_per_byte", "minimal_pairs", "translation")
    heldout_kb: float = Field(256, gt=0, description="held-out text by stream for bits per byte; the baselines read the same bytes")
    minimal_pairs: int = Field(400, ge=1, description="items by language")
    translation_segments: int = Field(60, ge=1, description="segments by direction")
    max_new_tokens: int = Field(96, ge=1)
    seed: int = 1


class ReportConfig(Section):
    """What the report shows."""

    removal_samples: int = Field(3, ge=0, le=50, description="removed documents shown for each reason")
    seed: int = 1
