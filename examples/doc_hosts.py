"""Commands on hosts: who they are, how they are reached, input, folders, terminals, kill.

One should see what each sample says of its hosts.
"""

from __future__ import annotations

from execo import Host, Remote, SshProcess, get_hosts_list, logger, transports
from execo.hostset import hostset
from execo.testing import Cluster

logger.setLevel("ERROR")

# Names of hosts.
print(*get_hosts_list("node[8-11]"))
print(*get_hosts_list(["web1", "node[1-3,7]", Host("db1", user="postgres", port=2222)]))

# The node set language.
print(*hostset("node[1-9]!node[4-6],login"))

cluster = Cluster(3).start()
hosts = cluster.hosts

# Parameters of a connection.
params = {"user": cluster.user, "keyfile": cluster.keyfile, "connect_timeout": 5}
addresses = [Host(host.address, port=host.port) for host in hosts]
print(Remote("true", addresses, params).run().ok)

# The shell of the user.
pipe = SshProcess("seq 3 | wc -l", hosts[0]).run()
words = SshProcess(["printf", "%s\\n", "as it is: $HOME | *"], hosts[0]).run()
print(pipe.stdout.strip(), words.stdout.strip())

# Folder and environment.
make = SshProcess("pwd; echo $CFLAGS", hosts[0], cwd="/", env={"CFLAGS": "-O2"}).run()
print(make.stdout.split())

# Input for all.
sort = Remote("sort", hosts).start()
print("pear\napple", file=sort)
sort.close_stdin().wait(30)
print({process.stdout for process in sort.processes})

# Output of each into a file of its own, or nowhere.
Remote("echo done", hosts, process_args={"stdout_handlers": ["/dev/null"]}).run()

# A terminal.
print(SshProcess("tty -s && echo a terminal", hosts[0], pty=True).run().stdout.strip())

# Kill.
servers = Remote("sleep 1000 & sleep 1001", hosts).start()
servers.wait(1)
servers.kill().wait(30)
print(servers.ended, servers.ok)

# At most two at a time.
print(Remote("true", hosts, fanout=2).run().ok)

# Why not.
cluster.fault(hosts[0], "silent")
transports.close_idle()
check = Remote("true", hosts, {"connect_timeout": 1}).run()
for process in check.failed:
    print(process.host, process.reason, process.message, sep=": ")

cluster.stop()
