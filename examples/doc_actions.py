"""Actions: trees, fanout, kill, waiting for the first, handlers.

One should see two outputs, what became of a sequence that was killed, the winner of a race, and a
report.
"""

from __future__ import annotations

from execo import (
    Action,
    ActionLifecycleHandler,
    Local,
    ParallelActions,
    Report,
    SequentialActions,
    wait_all_actions,
    wait_any_actions,
)

# A tree.
prepare = Local("echo prepared", name="prepare")
workers = [Local(f"sleep 0.{n}; echo worker {n}", {"shell": True}) for n in range(4)]
experiment = SequentialActions(
    [prepare, ParallelActions(workers, name="workers", fanout=2)], name="experiment"
).run()
print([process.stdout.strip() for process in experiment.processes])

# Killed: what runs gets the signal, what waits is given up.
steps = SequentialActions([Local("sleep 60"), Local("sleep 61")], name="steps").start()
steps.kill().wait()
for process in steps.processes:
    print(process, process.ok, process.message)

# A race.
race = [Local("sleep 0.1", name="hare"), Local("sleep 60", name="tortoise")]
for runner in race:
    runner.start()
for winner in wait_any_actions(race, timeout=30):
    print(winner.name, "is first")
for runner in race:
    runner.kill()
wait_all_actions(race)


# Handlers.
class Progress(ActionLifecycleHandler):
    """Says when an action ends."""

    def end(self, action: Action) -> None:
        print(action.name, "ended, failed:", len(action.failed))


Local("true", lifecycle_handlers=[Progress()]).run()

# A report.
print(Report([experiment, steps], name="today").to_string())
