"""Gram matrices of layers' inputs, summed while the model runs; memory within a budget.

Matrices of many layers are larger than the model: they are summed for so many layers at a time as
fit the budget, and the texts are run once for every such part. Within a batch products are float32,
between batches sums are float64: rounding does not grow with the number of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from safeswap.calibration.layers import LinearLayer
from safeswap.errors import CalibrationError

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's tokens, and those at which layers' inputs are counted.

    Attributes:
        ids: of all tokens.
        begin, end: positions that count: all of a text; of a chat those from which a token of the
            answer is predicted.
        number: among its like, where that matters.
    """

    ids: Ids
    begin: int
    end: int
    number: int = 0


@dataclass(slots=True)
class InputGroup:
    """Layers that see the same inputs, and their one matrix.

    Attributes:
        layers: the first one's name is the matrix's.
        total: float64 [side, side] on the model's device while it is summed, else None.
        rows: tokens seen.
    """

    layers: list[LinearLayer]
    total: torch.Tensor | None = None
    rows: int = 0
    _last: torch.Tensor | None = field(default=None, repr=False)
    _seen: set[int] = field(default_factory=set, repr=False)

    @property
    def name(self) -> str:
        """The tensor that the matrix is stored under."""
        return self.layers[0].tensor

    @property
    def side(self) -> int:
        """Number of rows and columns of the matrix."""
        return self.layers[0].side

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix while it is summed in float64."""
        return 8 * self.side**2

    def start(self, device: torch.device) -> None:
        """Start an empty sum, float64 [side, side]."""
        self.total = torch.zeros(self.side, self.side, dtype=torch.float64, device=device)
        self.rows = 0
        self._last, self._seen = None, set()

    def see(self, place: int, inputs: torch.Tensor, counted: torch.Tensor | None = None) -> None:
        """A layer of the group got inputs, in whatever order the layers run; they are added once.

        Args:
            counted: bool, a value for each token of the batch; None: all count.

        Raises:
            CalibrationError: the layers had the same inputs on the probe, and have not now; or
                they are not those of the batch's tokens, one by one.
        """
        if inputs is not self._last or place in self._seen:
            self._require_none_waiting()
            self._last, self._seen = inputs, set()
            rows = self._counted(inputs.detach().reshape(-1, self.side), counted).float()
            assert self.total is not None
            self.total += torch.matmul(rows.T, rows)
            self.rows += len(rows)
        self._seen.add(place)
        if len(self._seen) == len(self.layers):  # let go of the inputs: a batch's are large
            self._last, self._seen = None, set()

    def _counted(self, rows: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
        if counted is None:
            return rows
        if len(rows) != counted.numel():
            raise CalibrationError(
                f"{self.name}: sees {len(rows)} inputs for {counted.numel()} tokens, so which are "
                "of the answers is not known. Use another operator for this model."
            )
        return rows[counted.reshape(-1)]

    def _require_none_waiting(self) -> None:
        if self._last is not None:
            raise CalibrationError(
                f"{', '.join(layer.tensor for layer in self.layers)} had the same inputs at first "
                "and now have not: this model's layers cannot be calibrated. Use another operator "
                "for it."
            )

    def finish(self) -> torch.Tensor:
        """The mean over rows, float32 [side, side] on the CPU and symmetric; the sum is let go."""
        self._require_none_waiting()
        assert self.total is not None
        mean = self.total.div_(max(self.rows, 1))
        mean = mean.add_(mean.T.clone()).mul_(0.5)
        self.total = None
        return mean.float().cpu()


Group = TypeVar("Group", bound=InputGroup)


def group_layers(model: nn.Module, layers: Sequence[LinearLayer], probe: Ids) -> list[InputGroup]:
    """Layers by their inputs: run once on a short text, those given the very same tensor belong
    together (query, key and value; gate and up).
    """
    seen: dict[int, list[torch.Tensor]] = {place: [] for place in range(len(layers))}

    def note(place: int) -> Callable[[torch.Tensor], None]:
        return lambda inputs: seen[place].append(inputs)

    with hooks((layer, note(place)) for place, layer in enumerate(layers)):
        run_layers(model, [probe])
    groups: dict[Any, InputGroup] = {}
    for place, layer in enumerate(layers):
        same: Any = tuple(map(id, seen[place])) or (None, place)
        groups.setdefault(same, InputGroup([])).layers.append(layer)
    return list(groups.values())


def parts_within(groups: Sequence[Group], memory: int) -> list[list[Group]]:
    """The groups in runs whose matrices fit the budget together.

    Args:
        memory: bytes.

    Raises:
        CalibrationError: one matrix alone is larger.
    """
    largest = max(groups, key=lambda group: group.nbytes)
    if largest.nbytes > memory:
        raise CalibrationError(
            f"--memory: the sums of {largest.name!r} alone take {largest.nbytes:,} bytes "
            f"({largest.side} inputs). Give at least --memory {-(-largest.nbytes // 10**6)}MB."
        )
    parts: list[list[Group]] = [[]]
    room = memory
    for group in groups:
        if group.nbytes > room:
            parts.append([])
            room = memory
        parts[-1].append(group)
        room -= group.nbytes
    return parts


def batches_of(encoded: Sequence[Encoded], batch_tokens: int) -> list[list[Encoded]]:
    """Texts of one length together, shortest first: nothing is padded, so every row is a token."""
    batches: list[list[Encoded]] = []
    for one in sorted(encoded, key=lambda one: len(one.ids)):
        last, length = batches[-1] if batches else [], len(one.ids)
        same = bool(last) and len(last[0].ids) == length
        if same and (len(last) + 1) * length <= batch_tokens:
            last.append(one)
        else:
            batches.append([one])
    return batches


def sum_inputs(
    model: nn.Module,
    part: Sequence[InputGroup],
    batches: Sequence[Sequence[Encoded]],
    device: torch.device,
    advance: Callable[[int], None],
) -> None:
    """Run all texts through the model and sum the part's matrices.

    Args:
        advance: told how many texts were run.
    """
    for group in part:
        group.start(device)

    counted: list[torch.Tensor | None] = [None]

    def add(group: InputGroup, place: int) -> Callable[[torch.Tensor], None]:
        return lambda inputs: group.see(place, inputs, counted[0])

    hooked = [
        (layer, add(group, place)) for group in part for place, layer in enumerate(group.layers)
    ]
    with hooks(hooked):
        for batch in batches:
            counted[0] = _counted(batch, device)
            run_layers(model, [one.ids for one in batch])
            advance(len(batch))


def _counted(batch: Sequence[Encoded], device: torch.device) -> torch.Tensor | None:
    """Which tokens of a batch count, bool [texts, tokens]; None where all do."""
    length = len(batch[0].ids)
    if all((one.begin, one.end) == (0, length) for one in batch):
        return None
    at = torch.arange(length, device=device)
    return torch.stack([(at >= one.begin) & (at < one.end) for one in batch])


def run_layers(model: nn.Module, batch: Sequence[Ids]) -> None:
    """Run the layers, without the output projection: its logits would be large for nothing."""
    layers = getattr(model, "base_model", model)
    device = next(model.parameters()).device
    ids = torch.tensor(list(batch), device=device)
    try:
        with torch.inference_mode():
            layers(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except torch.OutOfMemoryError as error:
        raise CalibrationError(
            f"{device}: {ids.numel()} tokens and the Gram matrices do not fit into its memory. "
            "Give a smaller --batch-tokens or --memory and run the same command again."
        ) from error


@contextmanager
def hooks(hooked: Iterable[tuple[LinearLayer, Callable[[torch.Tensor], None]]]) -> Iterator[None]:
    """While it is open, every layer's inputs are told to what stands beside it."""
    handles = []

    def hook_of(act: Callable[[torch.Tensor], None]) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, keywords: Any) -> None:
            act(arguments[0] if arguments else keywords["input"])

        return hook

    try:
        for layer, act in hooked:
            handles.append(layer.module.register_forward_pre_hook(hook_of(act), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
