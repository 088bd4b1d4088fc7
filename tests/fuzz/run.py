"""Changed files, one after another, to every reader; what comes out must be an error of ours.

``python -m fuzz.run --cases 100000`` in ``tests`` (``make fuzz``) says per reader how many cases
there were and what came out that should not have. A case is found again by its reader and number.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fuzz.readers import READERS, Reader
from safeswap.errors import SafeswapError

SECONDS = 10
"""What one case may take; the slowest of honest ones takes a tenth of a second."""
MEMORY = 1 << 30
"""Bytes that a case may ask for beyond what the process has; the files have some kB."""


class Hang(BaseException):
    """Past all handlers: a case did not end in time."""


class Bench:
    """Folders of valid files, one for each way to make them; a case changes one file of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[object, Path] = {}

    def place(self, reader: Reader) -> tuple[Path, bytes]:
        """The reader's folder, and the valid content of its file."""
        if reader.make not in self._made:
            place = self.folder / str(len(self._made))
            place.mkdir()
            reader.make(place)
            self._made[reader.make] = place
        place = self._made[reader.make]
        return place, (place / reader.file).read_bytes()

    def check(self, reader: Reader) -> None:
        """What was made is valid: a change of rubbish would show nothing."""
        place, _ = self.place(reader)
        reader.read(place)


def case(reader: Reader, place: Path, valid: bytes, number: int) -> BaseException | None:
    """One changed file read; what was raised that is not ours, or None."""
    dice = random.Random(f"{reader.name} {number}")
    path = place / reader.file
    changed = reader.change(dice, valid)
    path.write_bytes(changed)
    try:
        with bounded():
            reader.read(place)
    except SafeswapError as error:
        return None if str(error).strip() else error
    except (Exception, Hang) as error:
        return error
    finally:
        path.write_bytes(valid)
    return None


@contextmanager
def bounded() -> Iterator[None]:
    """A limit of time, and of memory above what is held now."""

    def ring(number: int, frame: object) -> None:
        raise Hang(f"more than {SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def main() -> int:
    """Run the cases, print the counts; 1 where something came out that should not have."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--reader", action="append", help="only this one; repeat it")
    parser.add_argument("--part", default="0/1", help="N/M: every Mth reader, from the Nth on")
    parser.add_argument("--trace", action="store_true", help="print each traceback")
    given = parser.parse_args()
    chosen = [one for one in READERS if not given.reader or one.name in given.reader]
    first, step = map(int, given.part.split("/"))
    folder, total = Path(tempfile.mkdtemp(prefix="fuzz-")), 0
    warnings.simplefilter("ignore")
    try:
        bench = Bench(folder)
        for reader in chosen[first::step]:
            bench.check(reader)
            place, valid = bench.place(reader)
            wrong: Counter[str] = Counter()
            each = share(reader, chosen, given.cases)
            for number in range(given.seed, given.seed + each):
                error = case(reader, place, valid, number)
                if error is not None:
                    wrong[origin(error)] += 1
                    if given.trace and wrong[origin(error)] == 1:
                        print(f"--- {reader.name}, case {number}")
                        traceback.print_exception(error, limit=-6)
            total += wrong.total()
            print(f"{reader.name:<28}{each:>8} cases, {wrong.total()} unexpected", flush=True)
            for what, count in wrong.most_common():
                print(f"    {count:>6}  {what}", flush=True)
    finally:
        shutil.rmtree(folder)
    print(f"{total} unexpected")
    return 1 if total else 0


def share(reader: Reader, readers: Sequence[Reader], cases: int) -> int:
    """How many of all cases a reader gets, so that none takes most of the time."""
    return math.ceil(cases / reader.cost / sum(1 / one.cost for one in readers))


def origin(error: BaseException) -> str:
    """Where it came from in the product, and what it is."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "/safeswap/" in frame.filename
    ]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}" if ours else "?"
    return f"{type(error).__name__} at {place}: {ascii(str(error))[:80]}"


if __name__ == "__main__":
    sys.exit(main())
