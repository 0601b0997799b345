"""Processes in a coroutine: ``await`` instead of ``wait()``.

One should see two outputs.
"""

from __future__ import annotations

import asyncio

from execo import Process


# Two at once.
async def output(command: str) -> str:
    process = await Process(command, shell=True).start()
    return process.stdout.strip()


async def main() -> None:
    print(await asyncio.gather(output("sleep 0.1; echo one"), output("echo two")))


asyncio.run(main())
