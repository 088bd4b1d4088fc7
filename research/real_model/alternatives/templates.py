"""Chat templates of a user who cannot train: a system message, and an answer already begun.

Both are one more line around a model's own template, given to ``safeswap evaluate
--chat-template``, so that prompts and lm-eval's tasks alike go through it.
"""

from __future__ import annotations

import json

# Gemma's own templates have no system turn either: its words open the first turn of the user.
SYSTEM = (
    "{%- set messages = [{'role': messages[0]['role'], 'content': WORDS ~ '\\n\\n' ~ "
    "messages[0]['content']}] + messages[1:] -%}\n"
)


def with_system(template: str, words: str) -> str:
    """The template with ``words`` at the head of the first message."""
    return SYSTEM.replace("WORDS", _literal(words)) + template


def with_prefill(template: str, words: str) -> str:
    """The template whose generation prompt ends in an answer's first ``words``."""
    begun = f"{{% if add_generation_prompt %}}{{{{ {_literal(words)} }}}}{{% endif %}}"
    return template.rstrip("\n") + begun


def _literal(words: str) -> str:
    """A string of Jinja, which knows JSON's escapes."""
    return json.dumps(words, ensure_ascii=False)
