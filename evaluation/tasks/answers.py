"""A few questions put to the chat model, to be read by people: no figure, only the greedy answers as they came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from evaluation.engines import Model

TASK = "answers"
QUESTIONS = pa.schema([("lang", pa.string()), ("question", pa.string())])


def items(questions: Mapping[str, Sequence[str]]) -> pa.Table:
    """One row a question (schema `QUESTIONS`)."""
    rows = [{"lang": lang, "question": question} for lang, asked in questions.items() for question in asked]
    return pa.Table.from_pylist(rows, schema=QUESTIONS)


def evaluate(model: Model, questions: pa.Table, max_new_tokens: int, advance: Callable[[float], None]) -> pa.Table:
    """The questions with the model's prompts and answers."""
    prompts = [model.chat_prompt(question) for question in questions["question"].to_pylist()]
    table = questions.append_column("model", pa.array([model.role] * len(prompts), pa.string()))
    table = table.append_column("prompt", pa.array(prompts, pa.string()))
    return table.append_column("answer", pa.array(model.answer(prompts, max_new_tokens, advance), pa.string()))
