"""Chaos on this side: no memory, no descriptors, no processes, no threads, no room on the disk, and
a wall clock that is set."""

from __future__ import annotations

from chaos import script

# -- memory -----------------------------------------------------------------------------------


def test_output_for_which_there_is_no_memory_is_a_failure() -> None:
    script(
        """
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        with Watch() as watch:
            many, few = (
                Process(command, shell=True, lifecycle_handlers=[watch.ends], nolog_error=True)
                for command in (
                    "yes 0123456789abcde | head -c 600000000",
                    "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.1; done",
                )
            )
            bounded = Process(
                "head -c 600000000 /dev/zero", max_output=1000, lifecycle_handlers=[watch.ends]
            )
            limit(resource.RLIMIT_AS, size + (200 << 20))
            for process in (many, few, bounded):
                process.start()
            for process in (many, few, bounded):
                process.wait(PATIENCE)
            limit(resource.RLIMIT_AS, -1)
            assert not many.ok and many.exit_code == 0, many
            assert "no memory" in many.message, many.message
            kept = many.stdout_bytes
            assert 0 < len(kept) == 600000000 - many.truncated, many.truncated
            assert kept == (b"0123456789abcde\\n" * (len(kept) // 16 + 1))[: len(kept)]
            assert few.ok and few.stdout == "".join(f"{i}\\n" for i in range(1, 10)), few
            assert bounded.ok and bounded.truncated == 600000000 - 1000
            watch.check(many, few, bounded)
        """
    )


def test_a_text_for_which_there_is_no_memory_can_be_asked_for_later() -> None:
    script(
        """
        with Watch() as watch:
            process = Process("head -c 100000000 /dev/zero", lifecycle_handlers=[watch.ends])
            process.run(PATIENCE)
            head = process.stdout_bytes[:3]
            size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            limit(resource.RLIMIT_AS, size + (50 << 20))
            try:
                process.stdout
            except MemoryError:
                pass
            else:
                raise AssertionError("there was memory")
            limit(resource.RLIMIT_AS, -1)
            assert len(process.stdout) == 100000000
            watch.check(process)
        """
    )
