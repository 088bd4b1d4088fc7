"""What evaluation costs on top of the backend's own generate.

    python benchmarks/evaluate.py [--runs 9] [--prompts 128] [--new-tokens 32] [--model FOLDER]

Times two things in turn, on the same model, prompts and batches:
- the floor: transformers' ``generate`` on batches that are encoded already, and nothing else;
- `collect_responses` through the hf backend: encoding, batching, generating, decoding, storing.
Prints the medians, their spread and the median ratio of neighbouring runs, which ought to stay
under the limit. Without ``--model`` a model of 20 M parameters with random weights is made: small
enough for a laptop, large enough that its answers take the time. A smaller one, such as the small
world's, makes the ratio worse, a real one better. Run it on a quiet machine, or with ``--cpu-time``
and OMP_NUM_THREADS=1: processor time, which waiting for other programs does not count into.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from safeswap.demo import models_folder
from safeswap.evaluation.backends import BackendOptions, Chat
from safeswap.evaluation.backends.encoding import encode_chat
from safeswap.evaluation.backends.hf import HFBackend
from safeswap.evaluation.benchmarks.prompts import Prompt, PromptSet
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite
from safeswap.evaluation.generate import Generation, collect_responses, settings_of
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import name_models
from safeswap.evaluation.results.store import start_results

LIMIT = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--model", type=Path, help="a checkpoint; default: a made-up one")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that is busy")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        run(Path(work), options)


def run(work: Path, options: argparse.Namespace) -> None:
    model = options.model or made_up(work / "model")
    responder = HFBackend(str(model), BackendOptions(batch_tokens=options.batch_tokens))
    suite, generation = make_suite(responder, options.prompts), Generation(options.new_tokens)
    (arm,) = name_models([f"model={model}"])
    floor_times, our_times, batches = [], [], encoded(responder, suite, generation)

    def floor() -> None:
        for tokens, mask in batches:
            with torch.inference_mode():
                responder.model.generate(
                    input_ids=tokens, attention_mask=mask, max_new_tokens=options.new_tokens
                )

    def ours() -> None:
        results = start_results(work / "results", settings_of(suite, generation), [arm.name])
        count = collect_responses(results, arm, suite, responder, generation, silent)
        assert count == options.prompts

    floor()  # warm
    for turn in range(options.runs):
        pair = [(floor, floor_times), (ours, our_times)]
        for task, times in pair if turn % 2 else reversed(pair):
            times.append(timed(task, time.process_time if options.cpu_time else time.perf_counter))
            shutil.rmtree(work / "results", ignore_errors=True)
    for name, times in (("generate alone", floor_times), ("collect_responses", our_times)):
        rate = options.prompts / statistics.median(times)
        print(
            f"{name:18} {statistics.median(times):7.3f} s  ({min(times):.3f} to {max(times):.3f})"
            f"  {rate:6.1f} prompts/s"
        )
    ratios = [ours / floor for ours, floor in zip(our_times, floor_times, strict=True)]
    ratio = statistics.median(ratios)  # each of two runs side by side
    verdict = "within" if ratio <= LIMIT else "ABOVE"
    print(f"single runs: {min(ratios):.3f} to {max(ratios):.3f}")
    print(f"collect_responses / generate: {ratio:.3f} ({verdict} the limit {LIMIT:g})")


def timed(task: Callable[[], None], clock: Callable[[], float]) -> float:
    begin = clock()
    task()
    return clock() - begin


def made_up(folder: Path) -> Path:
    """Random weights, with the small world's tokenizer and a wide vocabulary as real ones have."""
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(models_folder() / "base" / name, folder / name)
    return folder


def make_suite(responder: HFBackend, count: int) -> Suite:
    """Prompts of 4 to 35 words of the model's vocabulary."""
    known = sorted(responder.tokenizer.get_vocab())
    words = [word for word in known if word.isalpha()]
    texts = [
        " ".join(words[(31 * n + 7 * k) % len(words)] for k in range(4 + n % 32))
        for n in range(count)
    ]
    prompts = tuple(Prompt(str(n), "qaa", text) for n, text in enumerate(texts))
    benchmark = Benchmark("speed", "speed", Measure.UNSAFE, PromptSet("speed", "harmful", prompts))
    return Suite(("qaa",), (benchmark,))


def encoded(
    responder: HFBackend, suite: Suite, generation: Generation
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The batches that the responder makes, as tensors (ids, mask)."""
    prompts = suite.benchmarks[0].prompts
    assert prompts is not None
    limit = generation.max_new_tokens
    chats = [Chat(({"role": "user", "content": p.text},), limit) for p in prompts.prompts]
    ids = [encode_chat(responder.tokenizer, chat, True) for chat in chats]
    order = sorted(range(len(ids)), key=lambda n: -len(ids[n]))
    batches = []
    for batch in responder._batches(order, chats, ids):
        longest = max(len(ids[n]) for n in batch)
        padding = [longest - len(ids[n]) for n in batch]
        tokens = [[responder.pad] * p + ids[n] for p, n in zip(padding, batch, strict=True)]
        mask = [[0] * p + [1] * (longest - p) for p in padding]
        pair = (torch.tensor(part, device=responder.device) for part in (tokens, mask))
        batches.append(tuple(pair))
    return batches  # type: ignore[return-value]


@contextmanager
def silent(title: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


if __name__ == "__main__":
    main()
