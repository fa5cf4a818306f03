"""Seeds of independent random numbers, derived from one seed."""

import hashlib


def derived_seed(*numbers: int) -> int:
    """Return a seed for a part of a computation, such as (seed, step, shard): 63 bits, the same on any machine."""
    digest = hashlib.blake2b(" ".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
