"""The samples of the quickstart: one process, two that fail, many at once, a report.

One should see the name of this machine, why two commands failed, the lengths of three outputs,
and a table of them.
"""

from __future__ import annotations

from execo import Local, ParallelActions, Process, Report

# A first process.
process = Process("uname -n").run()
print("this is", process.stdout.strip())
print(process.ok, process.exit_code)

# Two that fail.
failed = Process("ls /nowhere", nolog_exit_code=True).run()
print(failed.ok, "|", failed.reason, "|", failed.message, "|", failed.stderr.strip())

missing = Process("lss /nowhere", nolog_error=True).run()
print(missing.ok, "|", missing.reason, "|", missing.message)

# Many at once.
sizes = [1000, 2000, 4000]
counts = [Local(f"seq {size} | wc -c", {"shell": True}) for size in sizes]
together = ParallelActions(counts, name="counts").run(timeout=30)
for size, one in zip(sizes, together.processes, strict=True):
    print(size, "numbers are", one.stdout.strip(), "bytes")
print("all went well:", together.finished_ok)

# A report.
print(Report([together]))
