"""Waiting for what processes print, and answering.

One should see a greeting, a port, two answers of two processes, and an expectation that failed.
"""

from __future__ import annotations

from execo import STDERR, Local, ParallelActions, Process

ASK = 'printf "name? "; read name; echo "hello $name"'
SERVE = "echo starting; sleep 0.1; echo listening on port 8080 >&2; cat"

# A dialogue.
with Process(ASK, shell=True).start() as process:
    process.expect(r"name\? ", timeout=10)
    process.write("Ada\n")
    index, match = process.expect([r"go away", r"hello (\w+)\n"], timeout=10)
    if index == 1 and match:
        print("greeted as", match[1])

# A server that is ready.
with Process(SERVE, shell=True).start() as server:
    _, match = server.expect(r"listening on port (\d+)\n", timeout=10, stream=STDERR)
    if match:
        print("port", match[1])

# Many at once.
servers = ParallelActions([Local(ASK, {"shell": True}) for _ in range(2)])
with servers.start():
    servers.expect(r"name\? ", timeout=10)
    for number, process in enumerate(servers.processes):
        process.write(f"number {number}\n")
    for process, _, match in servers.expect(r"hello (.*)\n", timeout=10):
        print(process.ok, match and match[1])

# A failure.
silent = Process("echo almost", nolog_expect_fail=True).start()
print(silent.expect("ready", timeout=10))
silent.wait()
print(silent.ok, silent.reason, silent.message)
