"""Outputs that live elsewhere: buckets, and repositories of a hub.

One thing holds for both: under the name that was asked for nothing can be loaded until all is
there, and a run that was killed goes on without sending again what arrived.
"""
