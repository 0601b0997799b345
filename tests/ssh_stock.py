"""The system's ssh_config as distributions install it: Debian, with systemd's, and Red Hat."""

from __future__ import annotations

from pathlib import Path

__all__ = ["debian", "put", "red_hat"]

DEBIAN = """
# This is the ssh client system-wide configuration file.  See
# ssh_config(5) for more information.

Include {folder}/ssh_config.d/*.conf

Host *
#   ForwardAgent no
#   StrictHostKeyChecking ask
#   ProxyCommand ssh -q -W %h:%p gateway.example.com
#   UserKnownHostsFile ~/.ssh/known_hosts.d/%k
    SendEnv LANG LC_*
    HashKnownHosts yes
    GSSAPIAuthentication yes
"""

RED_HAT = """
# To modify the system-wide ssh configuration, create a  *.conf  file under
#  /etc/ssh/ssh_config.d/  which will be automatically included below
Include {folder}/ssh_config.d/*.conf
"""

RED_HAT_50 = """
# The options here are in the "Match final block" to be applied as the last
# options and could be potentially overwritten by the user configuration
Match final all
	# Follow system-wide Crypto Policy, if defined:
	Include {folder}/openssh.config

	GSSAPIAuthentication yes

# If this option is set to yes then remote X11 clients will have full access
# to the original X11 display. As virtually no X11 client supports the untrusted
# mode correctly we set this to yes.
	ForwardX11Trusted yes

# Send locale-related environment variables
	SendEnv LANG LC_CTYPE LC_NUMERIC LC_TIME LC_COLLATE LC_MONETARY LC_MESSAGES
	SendEnv LC_PAPER LC_NAME LC_ADDRESS LC_TELEPHONE LC_MEASUREMENT
	SendEnv LC_IDENTIFICATION LC_ALL LANGUAGE
	SendEnv XMODIFIERS

# Uncomment this if you want to use .local domain
# Host *.local
"""

CRYPTO_POLICY = """
Ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr
MACs hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com,hmac-sha2-512
GSSAPIKexAlgorithms gss-curve25519-sha256-,gss-nistp256-sha256-,gss-group14-sha256-
KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256
HostKeyAlgorithms ecdsa-sha2-nistp256,ssh-ed25519,rsa-sha2-256,rsa-sha2-512
PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256,ssh-ed25519,rsa-sha2-256,rsa-sha2-512
HostbasedAcceptedAlgorithms ecdsa-sha2-nistp256,ssh-ed25519,rsa-sha2-256,rsa-sha2-512
CASignatureAlgorithms ecdsa-sha2-nistp256,ssh-ed25519,rsa-sha2-256,rsa-sha2-512
RequiredRSASize 2048
"""

SYSTEMD = """
Host .host machine/.host
        ProxyCommand /usr/lib/systemd/systemd-ssh-proxy unix/run/ssh-unix-local/socket %p
        ProxyUseFdpass yes
        CheckHostIP no

Host unix/* unix%* vsock/* vsock%* machine/* machine%*
        ProxyCommand /usr/lib/systemd/systemd-ssh-proxy %h %p
        ProxyUseFdpass yes
        CheckHostIP no
"""


def put(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def debian(folder: Path) -> Path:
    """Write the files of Debian and Ubuntu; the name of the one to begin with."""
    put(folder / "ssh_config.d" / "20-systemd-ssh-proxy.conf", SYSTEMD)
    return put(folder / "ssh_config", DEBIAN.format(folder=folder))


def red_hat(folder: Path) -> Path:
    """The same for Red Hat and Fedora."""
    put(folder / "ssh_config.d" / "50-redhat.conf", RED_HAT_50.format(folder=folder))
    put(folder / "openssh.config", CRYPTO_POLICY)
    return put(folder / "ssh_config", RED_HAT.format(folder=folder))
