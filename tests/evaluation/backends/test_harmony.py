"""Harmony's channels as a thought and an answer, from text and from tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")

import tokenizers
from transformers import PreTrainedTokenizerFast

from safeswap.evaluation.backends.harmony import without_channels
from safeswap.evaluation.backends.thoughts import apart, decoded

EXAMPLE = (
    "<|channel|>analysis<|message|>User asks: simple arithmetic.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>2 + 2 = 4.<|return|>"
)
"""After the example in harmony's ``docs/format.md``."""
PLAIN = st.text(st.characters(exclude_characters="<>[]|", exclude_categories=("Cs",)), min_size=1)


def test_the_example_of_the_format_is_a_thought_and_an_answer() -> None:
    assert apart(without_channels(EXAMPLE)) == ("2 + 2 = 4.", "User asks: simple arithmetic.")


@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("2 + 2 = 4.", "2 + 2 = 4.", ""),
        ("<|channel|>final<|message|>four", "four", ""),
        ("<|channel|>analysis<|message|>hm", "", "hm"),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant", "", "hm"),
        ("<|channel|>analysis<|message|>a</think>b", "", "ab"),
        ("<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>", "", "{}"),
        ("<|channel|>analysis", "", "<|channel|>analysis"),
        (f"{EXAMPLE}<|start|>assistant<|channel|>final<|message|>So.", "2 + 2 = 4.\nSo.",
         "User asks: simple arithmetic."),
    ],
)  # fmt: skip
def test_channels_are_told_apart(text: str, answer: str, thought: str) -> None:
    assert apart(without_channels(text)) == (answer, thought)


@given(st.lists(st.tuples(st.sampled_from(["analysis", "commentary", "final"]), PLAIN)))
def test_only_final_messages_are_answers(messages: list[tuple[str, str]]) -> None:
    text = "<|start|>assistant".join(
        f"<|channel|>{channel}<|message|>{words}<|end|>" for channel, words in messages
    )
    answer, _ = apart(without_channels(text))
    expected = "\n".join(words for channel, words in messages if channel == "final").strip()
    assert answer == (expected if messages else "")


@given(st.text())
def test_no_text_raises(text: str) -> None:
    without_channels(text)
    without_channels(f"<|channel|>{text}")


MARKS = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>"]
WORDS = ["analysis", "final", "assistant", "yes", "no", "hm"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with harmony's marks as special tokens, which decoding leaves out."""
    vocabulary = {word: n for n, word in enumerate(["<unk>", *MARKS, *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens([tokenizers.AddedToken(mark, special=True) for mark in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<|return|>"
    )


def test_tokens_are_decoded_with_their_marks(tokenizer: PreTrainedTokenizerFast) -> None:
    said = (
        "<|channel|> analysis <|message|> hm no <|end|> <|start|> assistant <|channel|> final "
        "<|message|> yes"
    )
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    lost = tokenizer.decode(ids, skip_special_tokens=True)
    assert "<|" not in lost and "final" in lost  # what every other backend would have given
    assert apart(decoded(tokenizer, [], ids)) == ("yes", "hm no")
    assert apart(decoded(tokenizer, [], ids, lost)) == ("yes", "hm no")  # vLLM's own text


def test_answers_without_channels_are_as_they_were(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("yes no", add_special_tokens=False)["input_ids"]
    assert decoded(tokenizer, [], ids) == "yes no"
    unknown = tokenizer.convert_tokens_to_ids("<unk>")
    without = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(
            tokenizers.models.WordLevel({"<unk>": 0, "yes": 1}, unk_token="<unk>")
        ),
        unk_token="<unk>",
    )
    assert unknown == 0 and decoded(without, [], [0, 1], "x yes") == "x yes"
