"""The small world's tokenizer: one token per word, with a chat template.

It is an ordinary Hugging Face fast tokenizer; saved, it is tokenizer.json, tokenizer_config.json
and a chat template, which ``transformers`` loads without code from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safeswap.demo.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNK, BOS, END, USER, ASSISTANT = "<pad>", "<unk>", "<s>", "<end>", "<user>", "<assistant>"
SPECIAL_TOKENS = (PAD, UNK, BOS, END, USER, ASSISTANT)
PUNCTUATION = (".", "?", "=")

# "<s> <user> WORDS <end> <assistant> WORDS <end>": no newline, no hidden system prompt.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ ' <' + message['role'] + '> ' + message['content'] + ' ' + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' <assistant>' }}{% endif %}"
)


def vocabulary(world: World) -> dict[str, int]:
    """Token to id: special tokens first, then punctuation, then the words language by language."""
    tokens = (*SPECIAL_TOKENS, *PUNCTUATION, *world.words())
    return {token: number for number, token in enumerate(tokens)}


def make_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a world."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(WordLevel(vocabulary(world), unk_token=UNK))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=64,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
