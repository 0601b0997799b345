"""A proxy that lets each connection wait before it goes on to the server: see bench_tree.

``delaying.py PORT SECONDS`` prints the port that it listens on, for every address of 127.0.0.0/8.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def serve(port: int, seconds: float) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        address = writer.get_extra_info("sockname")[0]
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(address, port)
            await asyncio.gather(pump(reader, back), pump(there, writer))
            back.close()
        writer.close()

    server = await asyncio.start_server(carry, "0.0.0.0", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def delaying(port: int, seconds: float) -> Iterator[int]:
    """The port of such a proxy, which runs meanwhile."""
    words = [sys.executable, __file__, str(port), str(seconds)]
    with subprocess.Popen(words, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL) as proxy:
        assert proxy.stdin is not None
        assert proxy.stdout is not None
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
