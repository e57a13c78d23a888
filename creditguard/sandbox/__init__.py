"""A gateway to rehearse against: the API Mall protocol on loopback, with a pool of your own.

    from creditguard.sandbox import Gateway

    with Gateway(credits=120) as gateway:
        ...                      # point creditguard at gateway.url with gateway.key
        gateway.drain(30)        # somebody else spends from the same account
        gateway.fault(status=503, times=2)

Standard library only. Nothing here reaches a network beyond the address it listens on, and no real
credit is spent.
"""

from __future__ import annotations

from creditguard.sandbox.faults import FaultSpec
from creditguard.sandbox.fields import BadField
from creditguard.sandbox.gateway import Gateway, serve

__all__ = ["BadField", "FaultSpec", "Gateway", "serve"]
