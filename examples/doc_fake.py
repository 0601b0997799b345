"""A test without commands: the fake transport follows a script.

One should see the outcome of a command that never ran.
"""

from __future__ import annotations

from execo import Process, transports
from execo.testing import Exit, Out, Script, scripts

# Scripted.
transports.register("fake", "execo.testing:FakeTransport")
scripts["uptime"] = Script(Out(b"up 3 days\n"), Exit(3))

process = Process("uptime", nolog_exit_code=True)
process.transport = "fake"
process.run()
print(process.stdout.strip(), process.exit_code)
