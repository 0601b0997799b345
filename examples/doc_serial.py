"""Serial ports: a question and its answer, bytes, ports of hosts, a port that is not there.

The ports are pseudo terminals, with a small instrument at the other end of each. One should see
what the instruments answer, and why a port cannot be used.
"""

from __future__ import annotations

import contextlib
import os
import threading

from execo import RemoteSerial, Serial
from execo.testing import Cluster


class Instrument:
    """Answers each line with its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cable, self.port = os.openpty()
        self.device = os.ttyname(self.port)
        self.thread = threading.Thread(target=self.answer)
        self.thread.start()

    def answer(self) -> None:
        # The end of the last one that has the port open is an error here.
        with open(self.cable, "r+b", buffering=0) as cable, contextlib.suppress(OSError):
            while cable.readline():
                cable.write(self.name.encode() + b"\xff\r\n")

    def stop(self) -> None:
        os.close(self.port)
        self.thread.join()


instruments = [Instrument("scale"), Instrument("meter")]
device = instruments[0].device

# A question and its answer.
with Serial(device, 115200).start() as port:
    print("*IDN?", file=port)
    _, match = port.expect(r"(\w+).*\r\n", timeout=30)
    if match:
        print("it is a", match[1])

# Bytes.
port.wait(30)
print(port.stdout_bytes)

# Ports of hosts.
devices = [one.device for one in instruments]
with Cluster(2) as cluster:
    ports = RemoteSerial(cluster.hosts, "{{devices}}", 9600).start()
    print("*IDN?", file=ports)
    for process, _, match in ports.expect(r"(\w+).*\r\n", timeout=30):
        print(process.host, match and match[1])
    ports.kill().wait(30)

# A port that is not there.
port = Serial("/dev/no-such-port", 9600, nolog_exit_code=True).run(30)
print(port.ok, port.message)

for one in instruments:
    one.stop()
