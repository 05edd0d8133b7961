"""The shape of one figure in `results.json`.

`results.json` is `{"models": {role: {...}}, "results": [Result, ...], "answers": [{"model", "lang", "question", "answer"}],
"skipped": [{"model", "task", "reason"}]}`; a role is `base` (the pretrained model), `chat` (the fine-tuned one) or
`model` (a folder or URL given by hand).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

DIGITS = 6


@dataclass(frozen=True)
class Result:
    """One metric of one model on one subset (a stream, a language, a direction).

    `n` counts `n_unit`s; `stderr` and `interval95` are None where fewer than two units leave them unknown. `chance` is
    what blind guessing gives (None where the idea makes no sense); `baselines` are other ways' values of the same
    metric on the same items.
    """

    task: str
    subset: str
    model: str
    metric: str
    value: float
    unit: str
    n: int
    n_unit: str
    stderr: float | None
    interval95: tuple[float, float] | None
    chance: float | None
    baselines: dict[str, float]
    higher_is_better: bool
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON-able, floats rounded to six digits (beyond what an engine's batching keeps stable)."""
        return rounded(asdict(self))


def rounded(value: Any) -> Any:
    """`value` with every float in it rounded, tuples as lists."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
