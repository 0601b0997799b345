"""Files of private keys, their public halves and their certificates: read, unlocked, signed with.

Every format that OpenSSH reads: its own (PROTOCOL.key), and PEM (PKCS#1, SEC1, PKCS#8). The
public half of a key that has a passphrase is known without it: it stands in clear in the file, or
in ``KEY.pub``. Everything here blocks.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from paramiko.message import Message

from execo._core.room import with_room

from .questions import NoAnswer

__all__ = [
    "CERTIFICATE",
    "KeyFile",
    "LoginProblem",
    "PrivateKey",
    "PublicKey",
    "public_file",
    "read_key",
    "rsa_bits",
    "unlock",
]

CERTIFICATE = "-cert-v01@openssh.com"
"""The end of the name of a certificate's type."""

_MAGIC = b"openssh-key-v1\0"
_BEGIN, _END = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END OPENSSH PRIVATE KEY-----"
_MOST_BYTES = 1 << 20
_MOST_ROUNDS = 10_000
"""Of the function that makes a key of a passphrase: that many take minutes. ssh-keygen makes 16."""

# The fields of a public key, after its type and, in a certificate, after the nonce.
_FIELDS = {"ssh-rsa": 2, "ssh-ed25519": 1, "sk-ssh-ed25519@openssh.com": 2}
_FIELDS_ECDSA, _FIELDS_SK_ECDSA = 2, 3
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "rsa-sha2-256": hashes.SHA256(),
    "rsa-sha2-512": hashes.SHA512(),
    "ecdsa-sha2-nistp256": hashes.SHA256(),
    "ecdsa-sha2-nistp384": hashes.SHA384(),
    "ecdsa-sha2-nistp521": hashes.SHA512(),
}


class LoginProblem(NoAnswer):
    """Why something cannot be used to log in. For messages: it names no secret."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key or a certificate: its type, and its form on the wire (RFC 4253, 6.6)."""

    kind: str
    blob: bytes

    @property
    def is_certificate(self) -> bool:
        return self.kind.endswith(CERTIFICATE)

    @property
    def plain(self) -> PublicKey | None:
        """The key that it is, or that it certifies; None if that cannot be told."""
        if not self.is_certificate:
            return self
        kind = self.kind.removesuffix(CERTIFICATE)
        if kind.startswith("sk-"):
            kind += "@openssh.com"
        count = _FIELDS.get(kind)
        if count is None:
            count = _FIELDS_SK_ECDSA if kind.startswith("sk-") else _FIELDS_ECDSA
        try:
            fields = _strings(self.blob, 2 + count)
        except ValueError:
            return None
        message = Message()
        for field in (kind.encode(), *fields[2:]):
            message.add_string(field)
        return PublicKey(kind, message.asbytes())


def _strings(blob: bytes, count: int) -> list[bytes]:
    """The first fields of ``blob``.

    :raises ValueError: if it has fewer
    """
    found, place = [], 0
    for _ in range(count):
        size = int.from_bytes(blob[place : place + 4], "big")
        if len(blob) < place + 4 + size or len(blob) < place + 4:
            raise ValueError("cut short")
        found.append(blob[place + 4 : place + 4 + size])
        place += 4 + size
    return found


def rsa_bits(key: PublicKey) -> int | None:
    """How long an RSA key is; None for another one."""
    plain = key.plain
    if plain is None or plain.kind != "ssh-rsa":
        return None
    try:
        return int.from_bytes(_strings(plain.blob, 3)[2], "big").bit_length()
    except ValueError:
        return 0


def public_file(path: str) -> PublicKey | None:
    """What the first line of a ``.pub`` file says; None without such a file.

    :raises LoginProblem: if it is no public key
    """
    try:
        data = _read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise LoginProblem(_unread(path, exc)) from exc
    words = data.split(b"\n", 1)[0].split()
    try:
        blob = base64.b64decode(words[1], validate=True)
        kind = _strings(blob, 1)[0].decode("ascii")
        if kind.encode() != words[0]:
            raise ValueError("the type is another one")
    except (IndexError, ValueError, binascii.Error) as exc:
        raise LoginProblem(f"{path}: it is not a public key or certificate") from exc
    return PublicKey(kind, blob)


def _read(path: str) -> bytes:
    return with_room(_read_now, path)


def _read_now(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(_MOST_BYTES)


def _unread(path: str, exc: OSError | ValueError) -> str:
    """Why a file cannot be read. A ValueError: its name cannot be one (a NUL, no UTF-8)."""
    return f"{path!r}: {exc}" if isinstance(exc, ValueError) else f"{path}: {exc.strerror or exc}"


# -- private keys ---------------------------------------------------------------------------------


class PrivateKey:
    """A key that can sign."""

    def __init__(self, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | _Ed25519) -> None:
        self._key = key
        line = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        kind, text = line.split()[:2]
        self.public = PublicKey(kind.decode(), base64.b64decode(text))

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """The signature on the wire.

        :param algorithm: that of the signature, without the ending of certificates
        """
        key = self._key
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(data, padding.PKCS1v15(), _HASHES[algorithm])
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            pair = Message()
            for number in decode_dss_signature(key.sign(data, ec.ECDSA(_HASHES[algorithm]))):
                pair.add_mpint(number)
            signature = pair.asbytes()
        else:
            signature = key.sign(data)
        message = Message()
        message.add_string(algorithm)
        message.add_string(signature)
        return message.asbytes()


_Ed25519 = ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of a private key.

    :param public: its public half; None while that is not known without the passphrase
    :param private: the key; None if a passphrase is needed
    """

    path: str
    data: bytes
    public: PublicKey | None
    private: PrivateKey | None


def read_key(path: str) -> KeyFile:
    """Read the file ``path``.

    :raises LoginProblem: if it is none that can be used
    """
    try:
        data = _read(path)
    except (OSError, ValueError) as exc:
        raise LoginProblem(_unread(path, exc)) from exc
    public, encrypted = _look(path, data)
    if public is not None and public.kind.startswith("sk-"):
        raise LoginProblem(
            f"{path}: it belongs to a security key; add it to the agent (ssh-add), or set "
            "transport to 'openssh'"
        )
    if not encrypted:
        private = _load(path, data, None)
        return KeyFile(path, data, private.public, private)
    return KeyFile(path, data, public or _beside(path), None)


def _look(path: str, data: bytes) -> tuple[PublicKey | None, bool]:
    """The public half as far as it stands in clear, and whether there is a passphrase."""
    text = data.strip()
    if not text.startswith(_BEGIN):
        head = data[: data.find(b"\n\n") + 1 or 400]
        return None, b"BEGIN ENCRYPTED" in head or b"4,ENCRYPTED" in head
    try:
        body = base64.b64decode(text[len(_BEGIN) :].partition(_END)[0])
        if not body.startswith(_MAGIC):
            raise ValueError("not of this kind")
        rest = body[len(_MAGIC) :]
        cipher, kdf, details = _strings(rest, 3)
        # The number of keys, always one, stands between.
        place = 12 + len(cipher) + len(kdf) + len(details) + 4
        (blob,) = _strings(rest[place:], 1)
        kind = _strings(blob, 1)[0].decode("ascii")
    except (ValueError, binascii.Error) as exc:
        raise LoginProblem(f"{path}: it is not a private key that can be read") from exc
    rounds = int.from_bytes(details[-4:], "big")
    if cipher != b"none" and rounds > _MOST_ROUNDS:
        raise LoginProblem(f"{path}: its passphrase would take {rounds} rounds: is it damaged?")
    return PublicKey(kind, blob), cipher != b"none"


def _beside(path: str) -> PublicKey | None:
    try:
        return public_file(f"{path}.pub")
    except LoginProblem:
        return None


def unlock(file: KeyFile, passphrase: str) -> PrivateKey | None:
    """The key of a file that needs a passphrase; None if it is another one.

    :raises LoginProblem: if the file cannot be used even so
    """
    if not passphrase:
        return None
    try:
        return _load(file.path, file.data, passphrase.encode("utf-8", "surrogateescape"))
    except LoginProblem as exc:
        cause = exc.__cause__
        if not isinstance(cause, (UnsupportedAlgorithm, TypeError)):
            return None
        problem = LoginProblem(str(exc))
    # Out of there, and without its frames, which hold the passphrase.
    raise problem from cause.with_traceback(None)


def _load(path: str, data: bytes, secret: bytes | None) -> PrivateKey:
    key: object
    try:
        if data.strip().startswith(_BEGIN):
            key = serialization.load_ssh_private_key(data.strip() + b"\n", secret)
        else:
            key = serialization.load_pem_private_key(data, secret)
    except Exception as exc:  # cryptography raises a dozen kinds
        raise LoginProblem(f"{path}: it is not a private key that can be read") from exc
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, _Ed25519)):
        raise LoginProblem(f"{path}: it is a key of a type that is no longer safe, or not known")
    try:
        return PrivateKey(key)
    except Exception as exc:  # a curve that SSH does not know
        raise LoginProblem(f"{path}: it is a key that SSH does not know") from exc
