"""The outcome of processes: attributes, reasons, what is ignored, what raises.

One should see what is known of a command that exits 2, of one that is ignored, and an error that
was asked for.
"""

from __future__ import annotations

from execo import Process, ProcessesFailed, Reason

# Failure is data.
listing = Process("ls /nowhere", nolog_exit_code=True).run()
if not listing.ok:
    assert listing.reason is Reason.EXIT_CODE
    print(listing.dump())

# A failure that is none.
search = Process(["grep", "needle", "/dev/null"], ignore_exit_code=True, nolog_exit_code=True).run()
print(search.exit_code, search.ok, search.reason)

# Raise on request.
try:
    Process("false", nolog_exit_code=True).run(check=True)
except ProcessesFailed as error:
    print(error)
