# The samples of the guide to the command line. A test runs them on embedded hosts.
set -eu

# Live.
execo run -w 'node[1-4]' -x node3 uptime
execo run -w 'node[1-4]' 'df -h / | tail -1'
# Gathered.
execo run -w 'node[1-4]' -b uname -r
execo run -w 'node[1-4]' --diff cat /etc/os-release
# Values.
execo run -w 'node[1-4]' -b 'echo {{{host}}} has number {{range(4)}}'
# Input.
seq 1000 | execo run -w 'node[1-4]' -b sha256sum
execo run -w node1 -N tar c notes | execo run -w 'node[2-4]' tar x
# Data.
execo run -w 'node[1-4]' --json uptime > uptime.jsonl
execo run -w 'node[1-4]' -q --outdir logs 'cat notes/log'
# Failures.
execo run -w 'node[1-4]' --retry 3 --max-failures 10% -t 5 -u 60 true || echo "worst status: $?"
# Files.
execo put -w 'node[1-4]' setup.sh --dest bin/
execo get -w 'node[1-4]' notes/log --dest results
# Node sets.
execo hosts 'node[1-40]!node3'
execo hosts --expand 'node[1-3]' | wc -l
execo hosts --count 'node[1-40]' --exclude 'node[10-19]'
# Until here.
