"""Checkpoints that lie elsewhere: on a web server, in a bucket, on a hub; read by ranges of bytes.

The layers above know an :class:`Address`, and open what lies there as a :class:`Mirror`: a local
folder with the small files, and a :class:`RemoteFile` for each file of weights, which gives any
range of its bytes. Nothing here is imported, and no library of the extra ``remote`` either, before
an address is given.
"""

from safeswap.checkpoint.remote.address import Address, parse_address

__all__ = ["Address", "parse_address"]
