"""Base of every recipe section: unknown keys are errors, values are frozen."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of a recipe. Each package defines its own; `fournil/recipe.py` composes them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
