"""Groups of heads in transformers' own models: nothing of a group acts but through its columns."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from families import FAMILIES, tiny_model  # noqa: E402
from safeswap.anatomy import anatomy_of, kind_of  # noqa: E402
from safeswap.anatomy.heads import HeadSpans, head_spans  # noqa: E402
from safeswap.checkpoint.heads import heads_of  # noqa: E402
from safeswap.errors import AnatomyError  # noqa: E402

REFUSED = {
    *("phi3", "gpt2", "gpt-neox", "gpt-bigcode", "codegen", "falcon", "falcon-new", "falcon-rw"),
    *("bloom", "mpt", "dbrx", "persimmon"),  # one matrix of queries, keys and values
    *("deepseek-v2", "deepseek-v3"),  # latent attention
    *("qwen3-next", "diffllama", "gpt-oss", "doge"),  # gates, differences, sinks, states
}
ACROSS = {"olmo2", "olmo3", "olmoe", "bitnet"}
"""What a head does hangs on the others: queries, or what heads give, are normalised together."""


def cut(model: Any) -> list[HeadSpans]:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    anatomy = anatomy_of(shapes)
    heads = heads_of(model.config.to_dict(), "here")
    units = [unit for unit in anatomy.units if kind_of(unit) == "attention"]
    return [head_spans(u, {n: shapes[n] for n in anatomy.tensors(u)}, heads) for u in units]


def changed(model: Any, spans: Any, value: Any) -> None:
    """Put ``value(rows or columns)`` in the place of spans."""
    held = model.state_dict()
    for span in spans:
        part = held[span.name].narrow(span.axis, span.begin, span.end - span.begin)
        part.copy_(value(part))


@pytest.mark.parametrize("family", sorted({*FAMILIES} - REFUSED - ACROSS))
def test_what_a_group_has_acts_through_its_columns_alone(family: str) -> None:
    ids = torch.arange(3, 15)[None]
    with torch.inference_mode():
        plain = tiny_model(family)(ids).logits
        for group in range(len(cut(tiny_model(family))[0].groups)):
            found = []
            for noise in (0.0, 1.0):
                model = tiny_model(family)
                for attention in cut(model):
                    own = attention.groups[group]
                    columns = [span for span in own if span.axis == 1]
                    rows = [span for span in own if span.axis == 0]
                    assert len(columns) == 1 and len(rows) >= 3
                    changed(model, rows, lambda part, n=noise: part + n * torch.randn_like(part))
                    if noise:
                        found.append(model(ids).logits)  # before its columns are gone
                    changed(model, columns, torch.zeros_like)
                found.append(model(ids).logits)
            silent, seen, *_, noisy = found
            torch.testing.assert_close(noisy, silent, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(seen, plain, atol=1e-4), "with its columns it acts"


@pytest.mark.parametrize("family", sorted(REFUSED & {*FAMILIES}))
def test_what_has_no_heads_apart_is_refused(family: str) -> None:
    with pytest.raises(AnatomyError, match="Use --by module"):
        cut(tiny_model(family))
