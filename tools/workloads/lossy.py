"""Two network namespaces with a link between them that loses and delays packets as it is told, in user space.

Each namespace has a TUN device; what one hands out goes to the other after `delay_s`, or nowhere. So it works
on kernels without netem. Needs root and iproute2.
"""

from __future__ import annotations

import dataclasses
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from workloads.common import program

TUNSETIFF = 0x400454CA  # include/uapi/linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
ADDRESSES = ("10.213.0.1", "10.213.0.2")
_MTU = 1500


@dataclasses.dataclass
class Link:
    """`namespaces` are the names of both ends, with the addresses of `ADDRESSES`.

    `delay_s` may be changed; what comes then overtakes what is still on the way. `held_s` is the longest that
    a packet was there: on a busy machine more than was asked for.
    """

    namespaces: tuple[str, str]
    delay_s: float
    carried: int = 0
    lost: int = 0
    held_s: float = 0.0


@contextmanager
def lossy_link(loss: float, delay_s: float, seed: int = 1, largest: int = _MTU) -> Iterator[Link]:
    """A link with these chances of loss and this delay, both ways; packets above `largest` bytes vanish."""
    link = Link((f"skt-{os.getpid()}-a", f"skt-{os.getpid()}-b"), delay_s)
    tuns: list[int] = []
    stop = threading.Event()
    carrier = threading.Thread(target=_carry, args=(link, tuns, (loss, largest), random.Random(seed), stop))
    try:
        for namespace, address in zip(link.namespaces, ADDRESSES, strict=True):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
            tuns.append(_tun(f"skt{len(tuns)}"))
            _ip("link", "set", f"skt{len(tuns) - 1}", "netns", namespace)
            _ip("-n", namespace, "address", "add", f"{address}/24", "dev", f"skt{len(tuns) - 1}")
            # One segment a packet: then the kernel counts what is seen.
            device = ("dev", f"skt{len(tuns) - 1}", "mtu", str(_MTU), "gso_max_segs", "1", "up")
            _ip("-n", namespace, "link", "set", *device)
        carrier.start()
        yield link
    finally:
        stop.set()
        if carrier.ident:
            carrier.join()
        for tun in tuns:
            os.close(tun)
        for namespace in link.namespaces:
            subprocess.run([program("ip"), "netns", "delete", namespace], check=False, capture_output=True)


def inside(namespace: str, *command: str) -> list[str]:
    """The command as it runs in a namespace."""
    return [program("ip"), "netns", "exec", namespace, *command]


def _ip(*words: str) -> None:
    subprocess.run([program("ip"), *words], check=True, capture_output=True)


def _tun(name: str) -> int:
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def _carry(
    link: Link,
    tuns: list[int],
    limits: tuple[float, int],
    rng: random.Random,
    stop: threading.Event,
) -> None:
    loss, largest = limits
    on_the_way: list[tuple[float, int, float, int, bytes]] = []
    number = itertools.count()
    while not stop.is_set():
        wait = max(on_the_way[0][0] - time.monotonic(), 0) if on_the_way else 0.05
        readable, _, _ = select.select(tuns, [], [], wait)
        for tun in readable:
            packet = os.read(tun, 1 << 16)
            # Only TCP over IPv4 is carried, and lost: neighbours and routers have nothing to say here.
            if packet[0] >> 4 != 4:
                continue
            if rng.random() < loss or len(packet) > largest:
                link.lost += 1
            else:
                other = tuns[1] if tun == tuns[0] else tuns[0]
                came = time.monotonic()
                heapq.heappush(on_the_way, (came + link.delay_s, next(number), came, other, packet))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, _, came, tun, packet = heapq.heappop(on_the_way)
            os.write(tun, packet)
            link.held_s = max(link.held_s, time.monotonic() - came)
            link.carried += 1
