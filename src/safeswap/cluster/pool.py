"""Workers on a cluster, and chunks of work that they pull.

A worker is a Ray actor around an object of ours. It holds nothing that cannot be made again: when
its process or node is lost, Ray starts it elsewhere, and its chunks go to whoever is free. So
each chunk's result comes back once, however often it was tried. What a worker raises of ours ends
the work with the very error; what was done before has been handed over already.

Nothing is sent to anybody else: Ray's reports of usage are turned off.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from safeswap.cluster.options import LOCAL, ClusterOptions
from safeswap.errors import ClusterError, SafeswapError
from safeswap.version import __version__

_log = logging.getLogger("safeswap.cluster")
AHEAD = 2
"""Chunks that a worker has at a time: one that it works on and one that waits at its door."""
DEATHS = 4
"""So many workers may be lost over one chunk before it is taken for what kills them."""
PATIENCE = 30.0
"""Seconds without a worker after which the user is told what is waited for."""


@dataclass(slots=True)
class _Worker:
    """An actor as the pool sees it.

    Attributes:
        given: futures of its chunks → their numbers, the first is what it works on.
        probe: the future that tells that it is there; None once it has said so.
        failed: how often in a row it was lost before it was there.
    """

    actor: Any
    given: dict[Any, int] = field(default_factory=dict)
    probe: Any = None
    failed: int = 0


class Pool:
    """Workers that are all alike.

    Args:
        make: the class of the worker's object; its ``ready()`` is called first, and may take long.
        given: the arguments of ``make``; they travel to each worker.
        options: the cluster.
        most: no more workers than this are of use.

    Attributes:
        about: what the first worker that was there said of itself (what ``ready`` gave).

    Raises:
        ClusterError: Ray is missing, the cluster cannot be reached, no node has room for a worker,
            or none can be started.
        SafeswapError: what ``make`` or ``ready`` raised of ours.
    """

    def __init__(
        self, make: type, given: Sequence[Any], options: ClusterOptions, most: int = 1 << 16
    ) -> None:
        self.ray = connected(options)
        self.options = self._settled(options)
        options = self.options
        count = min(self._room(), most)
        kind = self.ray.remote(_Held).options(
            num_cpus=options.cpus, num_gpus=options.gpus, max_restarts=-1, max_task_retries=0
        )
        # By value: what lies in the object store may be gone when an actor is started again.
        held = (make, tuple(given), __version__)
        self._workers = [_Worker(kind.remote(*held)) for _ in range(count)]
        for worker in self._workers:
            worker.probe = worker.actor.ready.remote()
        self.about: Any = None
        try:
            while self.about is None:
                self._wait([])
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._workers)

    def spread(self, method: str, chunks: Sequence[Sequence[Any]]) -> Iterator[tuple[int, Any]]:
        """Call ``method(*chunk)`` of some worker for each chunk.

        Yields:
            (number of the chunk, what came back), as they are done, each number once.

        Raises:
            ClusterError: a chunk that loses one worker after the other.
            SafeswapError: what a worker raised of ours.
        """
        todo, deaths, left = deque(range(len(chunks))), [0] * len(chunks), len(chunks)
        for worker in self._workers:  # what an earlier call left undone is nobody's
            worker.given.clear()
        while left:
            self._hand_out(method, chunks, todo, deaths)
            for worker, future in self._wait(self._busy()):
                if future not in worker.given:  # lost with the one before it
                    continue
                try:
                    result = self._get(future)
                except _LostError as lost:
                    self._lost(worker, todo, deaths, lost)
                    continue
                left -= 1
                yield worker.given.pop(future), result

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self.ray.kill(worker.actor)
        self._workers = []

    def _hand_out(
        self, method: str, chunks: Sequence[Sequence[Any]], todo: deque[int], deaths: list[int]
    ) -> None:
        """Give free workers something to do, evenly: first one chunk each, then one more.

        The last chunks wait here and at nobody's door, so that they go to whoever is free first.
        """
        for ahead in range(1, AHEAD + 1):
            for worker in self._workers:
                if ahead > 1 and len(todo) <= len(self._workers):
                    return
                if worker.probe is not None or len(worker.given) >= ahead or not todo:
                    continue
                alone = deaths[todo[0]] or any(deaths[n] for n in worker.given.values())
                if worker.given and alone:  # whoever dies then dies of it
                    continue
                number = todo.popleft()
                future = worker.actor.call.remote(method, *chunks[number])
                worker.given[future] = number

    def _busy(self) -> list[tuple[_Worker, Any]]:
        return [(worker, future) for worker in self._workers for future in worker.given]

    def _wait(self, busy: Sequence[tuple[_Worker, Any]]) -> list[tuple[_Worker, Any]]:
        """What is done of ``busy``, once anything is; workers that have come up are noted."""
        owners = {future: worker for worker, future in busy}
        probes = {one.probe: one for one in self._workers if one.probe is not None}
        done, rest = self._first_of([*owners, *probes], tell=not owners)
        if rest:
            done += self.ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for future in done:
            if future in probes:
                self._came(probes[future])
        return [(owners[future], future) for future in done if future in owners]

    def _first_of(self, futures: list[Any], *, tell: bool) -> tuple[list[Any], list[Any]]:
        """One that is done, and the others; ``tell`` says after a while what is waited for."""
        begun = time.monotonic()
        while True:
            done, rest = self.ray.wait(futures, num_returns=1, timeout=1.0)
            if done:
                return done, rest
            if tell and time.monotonic() - begun > PATIENCE:
                _log.info(f"waiting for a worker: {self._resources()}")
                tell = False

    def _came(self, worker: _Worker) -> None:
        """A worker has said that it is there, or that it cannot be."""
        future, worker.probe = worker.probe, None
        try:
            about = self._get(future)
        except _LostError as lost:  # while it was starting; Ray tries again
            worker.failed += 1
            if worker.failed >= DEATHS:
                raise ClusterError(
                    f"a worker was lost {DEATHS} times before it was ready ({lost}). Does the "
                    "model fit into a worker's memory?"
                ) from None
            worker.probe = worker.actor.ready.remote()
            return
        worker.failed = 0
        self.about = self.about if self.about is not None else about

    def _lost(self, worker: _Worker, todo: deque[int], deaths: list[int], lost: _LostError) -> None:
        """A worker is gone with its chunks: they are for others, and it is waited for."""
        numbers = list(worker.given.values())
        worker.given.clear()
        worker.probe = worker.actor.ready.remote()
        todo.extendleft(reversed(numbers))
        deaths[numbers[0]] += 1  # the one that it worked on
        _log.warning(f"a worker was lost ({lost}); its work is given to others")
        if deaths[numbers[0]] >= DEATHS:
            raise ClusterError(
                f"{DEATHS} workers were lost one after the other over the same work ({lost}). It "
                "may need more memory than they have: lower --batch-tokens or --cluster-chunk, or "
                "give a worker more. What was done is kept; run the same command again."
            )

    def _get(self, future: Any) -> Any:
        """A future's result.

        Raises:
            _LostError: its worker is gone.
            SafeswapError: as the worker raised it.
        """
        errors = self.ray.exceptions
        try:
            return self.ray.get(future)
        except errors.RayTaskError as error:
            if isinstance(error.cause, SafeswapError):
                raise error.cause from None
            raise ClusterError(f"a worker failed: {_last(error)}") from None
        except (errors.ActorUnschedulableError, errors.RuntimeEnvSetupError) as error:
            raise ClusterError(f"no worker can be started: {_short(error)}") from None
        except (errors.RayActorError, errors.OutOfMemoryError, errors.ObjectLostError) as error:
            if "creation task" in str(error):  # its code cannot be had there
                raise ClusterError(f"a worker cannot be started: {_last(error)}") from None
            raise _LostError(_short(error)) from None

    def _settled(self, options: ClusterOptions) -> ClusterOptions:
        """The options with a number of GPUs."""
        if options.gpus is not None:
            return options
        return replace(options, gpus=float(self.ray.cluster_resources().get("GPU", 0) >= 1))

    def _room(self) -> int:
        """For how many workers there is room, at most as many as were asked for.

        Raises:
            ClusterError: for none, on any node.
        """
        options = self.options
        rooms: list[int] = [
            min(
                math.floor(node["Resources"].get(name, 0.0) / each + 1e-9)
                for name, each in (("CPU", options.cpus), ("GPU", options.gpus))
                if each
            )
            for node in self.ray.nodes()
            if node["Alive"]
        ]
        if sum(rooms) == 0:
            raise ClusterError(
                f"no node has room for a worker of {options.cpus:g} CPUs and {options.gpus:g} GPUs "
                f"(--cluster-cpus, --cluster-gpus): {self._resources()}"
            )
        whole = sum(rooms)
        return min(whole, options.workers or whole)

    def _resources(self) -> str:
        """What the cluster has, node by node."""
        nodes = [node for node in self.ray.nodes() if node["Alive"]]
        said = [
            f"{node['Resources'].get('CPU', 0):g} CPUs and {node['Resources'].get('GPU', 0):g} GPUs"
            for node in nodes
        ]
        return f"the cluster has {len(nodes)} nodes, of {', '.join(said)}."


class _Held:
    """The actor: an object of ours that is made when it is first needed, so that what it raises
    comes back as an answer and not as the death of a process.
    """

    def __init__(self, make: Callable[..., Any], given: Sequence[Any], version: str) -> None:
        self._make, self._given, self._version = make, given, version
        self._own: Any = None

    def ready(self) -> Any:
        """Make the object; what it says of itself."""
        if self._version != __version__:
            raise ClusterError(
                f"{_node()}: has safeswap {__version__}, and the command {self._version}. Install "
                "the same on all nodes. What was done is kept."
            )
        if self._own is None:
            self._own = self._make(*self._given)
        return self._own.ready()

    def call(self, method: str, *given: Any) -> Any:
        """One chunk of work; after a restart the object is made first."""
        if self._own is None:
            self.ready()
        return getattr(self._own, method)(*given)


class _LostError(Exception):
    """A worker's process or node is gone."""


def connected(options: ClusterOptions) -> Any:
    """Ray, connected to the cluster; a process belongs to one at a time.

    Raises:
        ClusterError: Ray is missing, or nothing answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's own advice is hushed
    if (
        options.address == LOCAL
    ):  # Ray's workers give way to everybody (15), the command's to nobody
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            f"--cluster needs {error.name}: pip install 'safeswap[cluster]'."
        ) from error
    if ray.is_initialized():
        return ray
    address = options.address
    try:
        ray.init(
            address=address,
            namespace="safeswap",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({"include_dashboard": False} if address == LOCAL else {}),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"--cluster {address}: no cluster answers there ({_short(error)}). Start one with `ray "
            "start --head`, or use --cluster local."
        ) from error
    return ray


def parts(count: int, workers: int, most: int) -> list[range]:
    """Numbers 0 to ``count`` in runs: short enough that each worker gets some eight of them, and
    none longer than ``most``.
    """
    size = max(1, min(most, math.ceil(count / (8 * max(1, workers)))))
    return [range(at, min(at + size, count)) for at in range(0, count, size)]


def _node() -> str:
    import ray

    return f"node {ray.util.get_node_ip_address()}"


def _last(error: BaseException) -> str:
    """The last line of a worker's traceback."""
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
