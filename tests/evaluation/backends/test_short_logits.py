"""Scores with fewer logits are those of lm-eval's own class, which makes all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lm_eval")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from calibration.test_calibrate import tokenizer_into  # noqa: E402
from families import save_tiny  # noqa: E402
from safeswap.evaluation.backends.short_logits import with_short_logits  # noqa: E402

Model = Any


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Model, Model]]:
    """lm-eval's own and ours on the same weights; GPT-2's too, whose logits come another way."""
    found = {}
    for name in ("llama", "gpt2"):
        folder = save_tiny(name, tmp_path_factory.mktemp("m") / name)
        tokenizer_into(folder)
        both = [kind(pretrained=str(folder), batch_size=3, dtype="float32", device="cpu")
                for kind in (HFLM, with_short_logits(HFLM))]  # fmt: skip
        found[name] = (both[0], both[1])
    return found


def requests_of(seed: int, count: int) -> list[Any]:
    """Contexts and continuations of many lengths, the token 0 at their ends among them."""
    chance = np.random.default_rng(seed)

    def ids(most: int) -> list[int]:
        found = chance.integers(0, 60, chance.integers(1, most)).tolist()
        return [*found, 0] if chance.random() < 0.3 else found

    return [((f"c{n}", f"a{n}"), ids(14), ids(6)) for n in range(count)]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 9))
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_scores_are_lm_evals_own(
    name: str, seed: int, count: int, models: dict[str, tuple[Model, Model]]
) -> None:
    plain, short = models[name]
    requests = requests_of(seed, count)
    wanted = plain._loglikelihood_tokens(requests, disable_tqdm=True)
    found = short._loglikelihood_tokens(requests, disable_tqdm=True)
    for (score, greedy), (own, same) in zip(wanted, found, strict=True):
        assert own == pytest.approx(score, abs=1e-4) and same == greedy


def test_fewer_logits_are_made(models: dict[str, tuple[Model, Model]]) -> None:
    _, short = models["llama"]
    made = []
    hook = short.model.lm_head.register_forward_hook(lambda _m, _i, out: made.append(out.shape[1]))
    try:
        request = (("c", "a"), list(range(1, 20)), [5, 6])
        short._loglikelihood_tokens([request], disable_tqdm=True)
    finally:
        hook.remove()
    assert made == [2]
    assert short._longest == 0  # other calls make all
