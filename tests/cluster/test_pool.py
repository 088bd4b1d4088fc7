"""Chunks are pulled by whoever is free, and done once whatever dies; on a Ray of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import workers
from cluster.workers import Doubler
from safeswap.cluster import ClusterOptions, Pool, parts
from safeswap.cluster import pool as pools
from safeswap.errors import ClusterError, ConfigError, EvaluationError

ray = pytest.importorskip("ray")
TWO = ClusterOptions("local", workers=2, cpus=0.5, gpus=0)


@pytest.fixture(scope="module", autouse=True)
def connected() -> Iterator[None]:
    ray.cloudpickle.register_pickle_by_value(workers)  # no worker has the tests
    yield
    ray.cloudpickle.unregister_pickle_by_value(workers)
    ray.shutdown()


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    made = Pool(Doubler, (str(tmp_path),), TWO)
    yield made
    made.close()


def test_every_chunk_comes_back_once(pool: Pool) -> None:
    assert pool.about == "here" and len(pool) == 2
    assert dict(pool.spread("double", [(n,) for n in range(40)])) == {n: 2 * n for n in range(40)}
    assert list(pool.spread("double", [])) == []


def test_what_a_worker_had_is_done_by_others(pool: Pool, tmp_path: Path) -> None:
    """Two workers die, one of them twice over the same chunk; the chunks in line are not lost."""
    chunks = [(n, {3: 1, 7: 2}.get(n, 0)) for n in range(12)]
    found = list(pool.spread("double", chunks))
    assert sorted(found) == [(n, 2 * n) for n in range(12)]
    assert len(list(tmp_path.glob("7-*"))) == 3


def test_what_kills_every_worker_is_given_up(pool: Pool) -> None:
    with pytest.raises(ClusterError, match="4 workers were lost one after the other"):
        list(pool.spread("double", [(1, 99), (2, 0)]))


def test_an_error_of_ours_comes_back_as_it_was_raised(pool: Pool) -> None:
    done = []
    with pytest.raises(EvaluationError, match=r"^three is refused\. Take another\.$"):
        for number, _ in pool.spread("refuse", [(n,) for n in (0, 1, 2, 3)]):
            done.append(number)
    assert set(done) <= {0, 1, 2}
    # and the pool goes on
    assert list(pool.spread("double", [(4,)])) == [(0, 8)]


def test_another_error_is_named(pool: Pool) -> None:
    with pytest.raises(ClusterError, match=r"a worker failed: .*division"):
        list(pool.spread("stumble", [(1,)]))


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no weights here\."):
        Pool(Doubler, (str(tmp_path), EvaluationError("no weights here.")), TWO)


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "__version__", "0.0.1")
    with pytest.raises(ClusterError, match=r"has safeswap .*, and the command 0\.0\.1"):
        Pool(Doubler, (str(tmp_path),), TWO)


def test_code_that_no_worker_has_is_named(tmp_path: Path) -> None:
    ray.cloudpickle.unregister_pickle_by_value(workers)
    try:
        with pytest.raises(ClusterError, match="cannot be started: ModuleNotFoundError"):
            Pool(Doubler, (str(tmp_path),), TWO)
    finally:
        ray.cloudpickle.register_pickle_by_value(workers)


def test_no_room_is_said_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no node has room .* 4096 CPUs .* 1 nodes?"):
        Pool(Doubler, (str(tmp_path),), ClusterOptions("local", cpus=4096))


@pytest.mark.parametrize(
    "given", [{"address": " "}, {"workers": -1}, {"chunk": 0}, {"cpus": 0.0, "gpus": 0.0}]
)
def test_options_that_cannot_be_are_refused(given: dict[str, object]) -> None:
    options = {"address": "local", **given}
    with pytest.raises(ConfigError, match=r"--cluster|without end"):
        ClusterOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "workers", "most"), [(0, 2, 5), (1, 8, 5), (1000, 2, 64)])
def test_parts_cover_everything_once(count: int, workers: int, most: int) -> None:
    found = parts(count, workers, most)
    assert [n for run in found for n in run] == list(range(count))
    assert all(0 < len(run) <= most for run in found)
