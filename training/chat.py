"""The chat format: one template text, and its tokens with a loss mask.

Each message is `<|im_start|>role\\ncontent<|im_end|>\\n` (ChatML); an answer is asked for with `<|im_start|>assistant\\n`
and ends at `<|im_end|>`. Content is stripped of outer blanks, and control strings inside it are taken apart
(`<|im_end|>` becomes `<| im_end|>`), in the template as in `encode_messages`: so neither a training example nor a request
to any server that renders this template can forge a turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.tokens import encode_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ROLES = ("system", "user", "assistant", "tool")
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
CONTROL_STARTS = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<|reserved_")
"""How every special token's string begins (`training.tokenizer.SPECIAL_TOKENS`)."""

_NEUTRALISE = " | ".join(f"replace('{start}', '{start.replace('<|', '<| ', 1)}')" for start in CONTROL_STARTS)

CHAT_TEMPLATE = f"""\
{{%- for message in messages -%}}
{{%- if message['role'] not in {list(ROLES)} -%}}
{{{{- raise_exception('the role of a message must be one of {", ".join(ROLES)}') -}}}}
{{%- endif -%}}
{{%- set content = (message['content'] or '') | {_NEUTRALISE} | trim -%}}
{{{{- '{IM_START}' + message['role'] + '\\n' -}}}}
{{%- if message['role'] == 'assistant' -%}}
{{%- generation -%}}{{{{- content + '{IM_END}' -}}}}{{%- endgeneration -%}}
{{%- else -%}}
{{{{- content + '{IM_END}' -}}}}
{{%- endif -%}}
{{{{- '\\n' -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- '{IM_START}assistant\\n' -}}}}{{%- endif -%}}
"""


def neutralise(text: str) -> str:
    """The text with a blank put into every control string, so that it cannot act as one."""
    for start in CONTROL_STARTS:
        text = text.replace(start, start.replace("<|", "<| ", 1))
    return text


def encode_messages(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them the assistant is to learn: its content and its `<|im_end|>`.

    The same ids and mask as transformers' `apply_chat_template(..., return_assistant_tokens_mask=True)`. `tokenizer` comes
    from `pipelines.tokens.load_tokenizer`. A role the template does not know is a ValueError.
    """
    start, end = _control_ids(tokenizer)
    line_end = encode_text(tokenizer, "\n")
    ids: list[int] = []
    mask: list[bool] = []
    for message in messages:
        role = message["role"]
        if role not in ROLES:
            raise ValueError(f"the role of a message must be one of {', '.join(ROLES)}, not {role!r}")
        head = [start, *encode_text(tokenizer, f"{role}\n")]
        body = [*encode_text(tokenizer, neutralise(message["content"] or "").strip()), end]
        ids += [*head, *body, *line_end]
        mask += [False] * len(head) + [role == "assistant"] * len(body) + [False] * len(line_end)
    return ids, mask


def _control_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    start, end = tokenizer.token_to_id(IM_START), tokenizer.token_to_id(IM_END)
    if start is None or end is None:
        raise ValueError(f"the tokenizer has no {IM_START} and {IM_END}; chat needs a tokenizer made by Fournil")
    return start, end
