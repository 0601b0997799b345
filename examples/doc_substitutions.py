"""Substitutions: one template, another text for each host. Nothing is run here.

One should see the texts for each host, and the error for a template that was meant for another
program.
"""

from __future__ import annotations

from execo import SubstitutionError, raw, remote_substitute

# One text for each host.
hosts = ["web1", "web2", "web3"]
ports = [8000, 8001, 8002]
for index in range(len(hosts)):
    print(remote_substitute("serve --name {{{host}}} --port {{ports}}", hosts, index))

# Expressions see local names; values repeat when there are fewer than hosts.
odd = 1
template = "echo {{[port + odd for port in ports[:2]]}}"
print([remote_substitute(template, hosts, index) for index in range(len(hosts))])

# What belongs to the shell stays.
print(remote_substitute("cat <<EOF >>log", hosts, 0))
print(remote_substitute("echo $((1<<2>>1)) <<ports>>", hosts, 0))

# Another program's braces.
try:
    remote_substitute("docker ps --format '{{.Names}}'", hosts, 0)
except SubstitutionError as error:
    print(error)

# The ways out.
print(remote_substitute(raw("docker ps --format '{{.Names}}'"), hosts, 0))
print(remote_substitute(r"docker ps --filter name={{{host}}} --format '\{{.Names}}'", hosts, 0))
