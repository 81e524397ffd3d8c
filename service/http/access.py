"""Access: the keys and tokens of a server, everything that uses them, and how they are replaced while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Any

from service.errors import BadSignatureError, ServiceError, TooManyFailuresError, UnauthorizedError
from service.http.auth import BearerAuth
from service.http.clients import ClientAddresses
from service.http.failures import Failures
from service.ops.logging import hide
from service.ops.rotation import Rotation, SecretFile
from service.ops.signing_keys import SigningKeyMonitor, fingerprint
from service.ops.token_usage import TokenUsage
from service.settings.secret_files import KEYS_FILE, TOKENS_FILE, load_keys, load_tokens, parse_keys, parse_tokens
from service.settings.sections import Settings
from service.storage.object_store import Storage
from service.urls.rendition_url import parse_rendition_url
from service.urls.signing import Signer
from service.urls.source_url import parse_source_url
from service.urls.unsigned import UnsignedTransforms
from service.urls.upload_ticket import UPLOADS_PATH, parse_upload_path

_UPLOADS = f"{UPLOADS_PATH}/".encode("ascii")


class Access:
    """The parts that know keys and tokens. A new file of them changes all parts at once."""

    def __init__(self, settings: Settings, storage: Storage, unsigned: UnsignedTransforms, forget_responses: Callable[[], object]) -> None:
        """Read the keys and tokens.

        storage: where the servers that share it record the key that they sign with.
        unsigned: the transforms that need no signature.
        forget_responses: called when a key was removed, because responses to the URLs that it signed may be stored in memory.

        Raises `SettingsError` for keys and tokens that cannot be read.
        """
        keys = load_keys(settings.auth, settings.storage.data)
        self.clients = ClientAddresses(list(map(ip_network, settings.server.trusted_proxies)), on_fly=bool(settings.fly.machine_id))
        self.failures = Failures()
        self._source_names = tuple(settings.sources.locations)
        self._forget_responses = forget_responses
        hide(key.hex() for key in keys)
        self.signer = Signer(keys, unsigned)
        self.signing_keys = SigningKeyMonitor(storage, keys, " ".join(filter(None, (settings.fly.region, settings.fly.machine_id))))
        self.token_usage = TokenUsage(settings.storage.data)
        self.auth = BearerAuth(load_tokens(settings.auth, self._source_names), self.token_usage)
        files = []
        if settings.auth.tokens_file is not None:
            files.append(SecretFile(TOKENS_FILE, settings.auth.tokens_file, self._adopt_tokens))
        if settings.auth.keys_file is not None:
            files.append(SecretFile(KEYS_FILE, settings.auth.keys_file, self._adopt_keys))
        self.rotation = Rotation(files)

    def __repr__(self) -> str:
        return f"<Access: {self.auth!r}, {self.rotation!r}>"

    def authenticate(self, raw_path: bytes, authorization: str) -> None:
        """Check the token of a request that changes something, or the signature of its upload URL.

        raw_path: that of the request. authorization: the value of its `Authorization`.

        Raises `UnauthorizedError` and `BadSignatureError`.
        """
        if raw_path.startswith(_UPLOADS):
            self.signer.verify_ticket(*parse_upload_path(raw_path))
        else:
            self.auth.find(authorization)

    def add_failure(self, scope: Mapping[str, Any], error: UnauthorizedError | BadSignatureError) -> None:
        """Count a request that failed because of its token or its signature. A request without a token is none that failed."""
        if isinstance(error, BadSignatureError):
            self.failures.add(self.clients.find(scope), "signature")
        elif any(name == b"authorization" for name, _ in scope["headers"]):
            self.failures.add(self.clients.find(scope), "token")

    def refuse_failures(self, scope: Mapping[str, Any]) -> None:
        """Raise `TooManyFailuresError` for a request with wrong credentials of a client that has sent too many of them."""
        if not self.failures:
            return
        seconds = self.failures.retry_after_seconds(self.clients.find(scope))
        if seconds and self._fails(scope):
            self.failures.refused += 1
            raise TooManyFailuresError(
                "Too many requests from this address had a wrong token or signature.",
                expected="a valid token or signature",
                received="another wrong one",
                remedy="Send valid requests, which are not limited, or wait for the seconds in Retry-After.",
                retry_after_seconds=seconds,
            )

    def _fails(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the token or the signature of a request is wrong."""
        raw_path: bytes = scope["raw_path"]
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        try:
            if raw_path.startswith(b"/i/"):
                self.signer.verify(*parse_rendition_url(raw_path))
            elif raw_path.startswith(b"/from/"):
                self.signer.verify(*parse_source_url(raw_path))
            elif raw_path.startswith(_UPLOADS) or (raw_path.startswith(b"/v1/") and authorization is not None):
                self.authenticate(raw_path, (authorization or b"").decode("latin-1"))
        except (BadSignatureError, UnauthorizedError):
            return True
        except ServiceError:
            # Another problem, which the route reports.
            return False
        return False

    def key_last_used(self) -> Mapping[str, float]:
        """Return by the fingerprint of each signing key when a signature of it was accepted last, as a Unix time, 0 for never."""
        return {fingerprint(key): used for key, used in dict(self.signer.last_used).items()}

    def _adopt_tokens(self, text: str) -> None:
        self.auth.replace_tokens(parse_tokens(text, self._source_names))

    def _adopt_keys(self, text: str) -> None:
        keys = parse_keys(text)
        hide(key.hex() for key in keys)
        removed = set(self.signer.last_used) - set(keys)
        self.signer.replace_keys(keys)
        self.signing_keys.replace_keys(keys)
        if removed:
            self._forget_responses()
