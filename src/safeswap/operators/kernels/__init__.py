"""Numerics that several operators share: masks, signs, order statistics, matrices, buffers."""
