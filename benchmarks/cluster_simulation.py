"""The pool's own code on a cluster that is made up: 64 GPUs, 10,000 chunks, stragglers, failures.

    python benchmarks/cluster_simulation.py [--workers 64] [--chunks 10000] [--seconds 60]

`safeswap.cluster.Pool` runs as it is; what stands in for Ray has a clock of its own, so that hours
take seconds. Chunks take lognormal times; some workers are slow; each worker fails after an
exponential time, loses the chunk that it works on and the one at its door, and is back when the
model is loaded again. Prints hours, and the efficiency: the bound, all work by all workers' speed
as if nothing failed, by what it took. Goal 0.9 in every row.
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from safeswap.cluster import ClusterOptions, Pool
from safeswap.cluster import pool as pools

GOAL = 0.9


class LostError(Exception):
    """An actor that is gone."""


class NeverError(Exception):
    """What does not happen here."""


class Errors:
    """Ray's exceptions, as far as the pool names them."""

    RayActorError = LostError
    RayTaskError = ActorUnschedulableError = RuntimeEnvSetupError = NeverError
    OutOfMemoryError = ObjectLostError = NeverError


@dataclass(frozen=True)
class Trouble:
    """What goes wrong.

    Attributes:
        spread: of a chunk's time, the standard deviation of its logarithm.
        slow: part of the workers that take three times as long.
        mtbf: mean hours until a worker fails; infinite: none does.
        load: seconds that a model takes to load.
    """

    name: str
    spread: float = 0.0
    slow: float = 0.0
    mtbf: float = math.inf
    load: float = 180.0


@dataclass(eq=False)
class Future:
    """Something that is done, or lost, at a time."""

    at: float
    lost: bool = False
    value: Any = None


@dataclass(eq=False)
class Actor:
    """A worker: works on one chunk after the other; fails when its time has come."""

    ray: Ray
    pace: float
    up: float = 0.0
    free: float = 0.0
    fails: float = math.inf
    open: list[Future] = field(default_factory=list)

    def __post_init__(self) -> None:
        """It loads the model first."""
        self.up = self.free = self.ray.now + self.ray.trouble.load
        self.fails = self.up + self.ray.next_failure()
        self.ready, self.call = Method(self._ready), Method(self._call)

    def _pass(self) -> None:
        """Let failures happen that are due."""
        while self.fails <= self.ray.now:
            for future in self.open:
                if future.at > self.fails:
                    future.at, future.lost = self.fails, True
            self.up = self.free = self.fails + self.ray.trouble.load
            self.fails = self.up + self.ray.next_failure()
        self.open = [future for future in self.open if future.at > self.ray.now]

    def _ready(self) -> Future:
        self._pass()
        return Future(max(self.up, self.ray.now), value="here")

    def _call(self, method: str, number: int) -> Future:
        self._pass()
        if self.up > self.ray.now:  # it is being started again: what is sent now is lost
            return Future(self.ray.now, lost=True)
        self.free = max(self.free, self.ray.now) + self.ray.times[number] * self.pace
        future = Future(self.free, value=number)
        self.open.append(future)
        return future


@dataclass
class Method:
    """``actor.method.remote(…)``."""

    remote: Callable[..., Future]


class Ray:
    """What the pool uses of Ray, in time of its own."""

    exceptions = Errors

    def __init__(self, workers: int, times: Sequence[float], trouble: Trouble, seed: int) -> None:
        self.now, self.times, self.trouble = 0.0, times, trouble
        self.random, self.workers = random.Random(seed), workers
        slow = round(trouble.slow * workers)
        self.paces = [3.0] * slow + [1.0] * (workers - slow)
        self.actors: list[Actor] = []

    def next_failure(self) -> float:
        """Seconds until a worker that is up fails."""
        if math.isinf(self.trouble.mtbf):
            return math.inf
        return self.random.expovariate(1 / (3600 * self.trouble.mtbf))

    def remote(self, kind: type) -> Ray:
        """The class of actors."""
        del kind
        self.remote = self._made  # type: ignore[method-assign, assignment]
        return self

    def options(self, **given: Any) -> Ray:
        """Nothing that matters here."""
        del given
        return self

    def _made(self, *given: Any) -> Actor:
        del given
        self.actors.append(Actor(self, self.paces[len(self.actors)]))
        return self.actors[-1]

    def nodes(self) -> list[dict[str, Any]]:
        """A node with a GPU for each worker."""
        return [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}] * self.workers

    def cluster_resources(self) -> dict[str, float]:
        """All of it."""
        return {"GPU": float(self.workers)}

    def wait(
        self, futures: list[Future], *, num_returns: int, timeout: float
    ) -> tuple[list[Future], list[Future]]:
        """The first that are done; the clock goes on to then, unless ``timeout`` is 0."""
        del num_returns
        while True:
            done = [one for one in futures if one.at <= self.now]
            if done or not timeout:
                return done, [one for one in futures if one.at > self.now]
            events = [one.at for one in futures]
            self.now = min(itertools.chain(events, (actor.fails for actor in self.actors)))
            for actor in self.actors:
                actor._pass()

    def get(self, future: Future) -> Any:
        """What came of it."""
        if future.lost:
            raise LostError("a worker failed")
        return future.value

    def kill(self, actor: Actor) -> None:
        """End it."""


def simulated(workers: int, chunks: int, seconds: float, trouble: Trouble, seed: int) -> float:
    """Hours that all chunks took, and the efficiency."""
    drawn = random.Random(seed)
    mean = math.log(seconds) - trouble.spread**2 / 2
    times = [drawn.lognormvariate(mean, trouble.spread) for _ in range(chunks)]
    times.sort(reverse=True)  # as the product does: the long ones first
    ray = Ray(workers, times, trouble, seed)
    pools.connected = lambda options: ray
    pool = Pool(object, (), ClusterOptions("auto", cpus=1, gpus=1))
    found = [number for number, _ in pool.spread("work", [(n,) for n in range(chunks)])]
    assert sorted(found) == list(range(chunks)), "every chunk once"
    bound = sum(times) / sum(1 / pace for pace in ray.paces)
    return bound / (ray.now - trouble.load)


def main() -> None:
    """Simulate each kind of trouble, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=3)
    chosen = parser.parse_args()
    troubles = (
        Trouble("none"),
        Trouble("chunks of unlike length", spread=0.5),
        Trouble("one worker in ten takes three times as long", spread=0.5, slow=0.1),
        Trouble("a failure per worker every 6 hours", spread=0.5, mtbf=6),
        Trouble("all of these, a failure every 2 hours", spread=0.5, slow=0.1, mtbf=2),
    )
    print("| trouble | efficiency, lowest of seeds |\n| --- | --: |")
    for trouble in troubles:
        found = min(
            simulated(chosen.workers, chosen.chunks, chosen.seconds, trouble, seed)
            for seed in range(chosen.seeds)
        )
        print(f"| {trouble.name} | {found:.3f}{'' if found >= GOAL else ' (goal missed)'} |")


if __name__ == "__main__":
    import logging

    logging.getLogger("safeswap").setLevel(logging.ERROR)
    main()
