"""A proxy that is the narrow way out of a machine: all that goes to the server through it shares so
many bytes a second, and is counted. See bench_broadcast.

``uplink.py PORT RATE`` prints the port that it listens on, on all addresses of 127.0.0.0/8, and for
each line on stdin how many bytes have left so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

PIECE = 1 << 16


class Uplink:
    """The proxy.

    :param port: of the server
    :param rate: bytes a second
    """

    def __init__(self, port: int, rate: float) -> None:
        self._port = port
        self._rate = rate
        self._free_at = 0.0
        self._sent = 0

    async def serve(self) -> None:
        """Until stdin ends."""
        listening = await asyncio.start_server(self._carry, "0.0.0.0", 0, backlog=1024)
        print(listening.sockets[0].getsockname()[1], flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(self._sent, flush=True)

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        address = back.get_extra_info("sockname")[0]
        with contextlib.suppress(OSError):
            far, out = await asyncio.open_connection(address, self._port)
            await asyncio.gather(self._pass(near, out, limited=True), self._pass(far, back))
            out.close()
        back.close()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, limited: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await source.read(PIECE):
                if limited:
                    self._sent += len(data)
                    self._free_at = max(self._free_at, loop.time()) + len(data) / self._rate
                    await asyncio.sleep(self._free_at - loop.time())
                sink.write(data)
                await sink.drain()
            sink.write_eof()


class Running:
    """Such a proxy in a process of its own; ``port`` leads through it."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin, self._stdout = stdin, stdout
        self.port = int(stdout.readline())

    def sent(self) -> int:
        """Bytes that have left through it."""
        self._stdin.write("\n")
        self._stdin.flush()
        return int(self._stdout.readline())


@contextlib.contextmanager
def uplink(port: int, rate: float) -> Iterator[Running]:
    """One that runs meanwhile."""
    words = [sys.executable, __file__, str(port), str(rate)]
    with subprocess.Popen(
        words, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True
    ) as proxy:
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        try:
            yield Running(proxy.stdin, proxy.stdout)
        finally:
            proxy.kill()


if __name__ == "__main__":
    asyncio.run(Uplink(int(sys.argv[1]), float(sys.argv[2])).serve())
