"""Carry plans out: bytes are copied where a plan says one expert, computed where it blends.

A job is one plan and one output folder; several jobs that share base and safety expert run
together, so that each piece of an input is warm when the next output asks for it.

`jobs` makes plans ready, `joins` lets their operators work, `pieces` computes their bytes, `write`
puts these on the disk.
"""

from safeswap.merge.jobs import (
    Job,
    check_donor,
    check_inputs,
    check_operator_files,
    identity,
    output_layout,
    prepare,
    refuse_overlap,
)
from safeswap.merge.joins import measure_joins, passes_bytes, single_threaded
from safeswap.merge.pieces import Piece, RunHash, Scratch, make_scratch, piece_bytes
from safeswap.merge.write import Written, write_weights

__all__ = [
    "Job",
    "Piece",
    "RunHash",
    "Scratch",
    "Written",
    "check_donor",
    "check_inputs",
    "check_operator_files",
    "identity",
    "make_scratch",
    "measure_joins",
    "output_layout",
    "passes_bytes",
    "piece_bytes",
    "prepare",
    "refuse_overlap",
    "single_threaded",
    "write_weights",
]
