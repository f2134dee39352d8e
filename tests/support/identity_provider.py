"""A small OpenID provider on a real port, whose tokens are really signed."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT, SECRET = "filter-service", "a secret of the client's"
KEY = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})
ANOTHER = RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})


@dataclass
class Faking:
    """Who signs in there, and what it does wrong: claims, key, algorithm or issuer."""

    address: str
    wrong: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, dict[str, str]] = field(default_factory=dict)  # by code

    def description(self) -> dict[str, str]:
        return {
            "issuer": self.wrong.get("issuer", self.address),
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token",
            "jwks_uri": f"{self.address}/keys",
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """Somebody signs in there at once: where the browser goes then."""
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert set(asked["scope"].split()) == {"openid", "email"}
        assert asked["code_challenge_method"] == "S256"
        code = f"code{len(self.asked)}"
        self.asked[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, sent: dict[str, str], authorization: str) -> dict[str, str] | None:
        """A token for a code, once, if the client proves who it is and that it asked."""
        asked = self.asked.pop(sent["code"], None)
        challenge = urlsafe_b64encode(sha256(sent["code_verifier"].encode()).digest())
        if (
            asked is None
            or not authorization.startswith("Basic ")
            or challenge.rstrip(b"=").decode() != asked["code_challenge"]
            or sent["redirect_uri"] != asked["redirect_uri"]
        ):
            return None
        now = int(time.time())
        right = {
            "iss": self.address,
            "sub": "sub-1",
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
        }
        wanted = right | self.wrong.get("claims", {})
        claims = {k: v for k, v in wanted.items() if v is not None}
        return {"access_token": "a", "token_type": "Bearer", "id_token": self._signed(claims)}

    def _signed(self, claims: dict[str, Any]) -> str:
        algorithm = self.wrong.get("algorithm", "RS256")
        if algorithm == "none":
            parts = ({"alg": "none"}, claims)
            packed = (urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts)
            return b".".join((*packed, b"")).decode()
        header = {"alg": algorithm, "kid": "1"}
        return jwt.encode(header, claims, self.wrong.get("key", KEY), algorithms=[algorithm])


@contextmanager
def provider() -> Iterator[Faking]:
    """A provider that answers until the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, asked = urlsplit(self.path).path, _fields(urlsplit(self.path).query)
            if path == "/.well-known/openid-configuration":
                self._answer(200, faking.description())
            elif path == "/keys":
                self._answer(200, {"keys": [KEY.as_dict(private=False)]})
            elif path == "/authorize":
                self.send_response(303)
                self.send_header("Location", faking.authorize(asked))
                self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            token = faking.token(_fields(body), self.headers.get("Authorization", ""))
            self._answer(*((200, token) if token else (400, {"error": "invalid_grant"})))

        def _answer(self, status: int, body: object) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        faking = Faking(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield faking
        finally:
            server.shutdown()
            thread.join()


def shared_secret() -> OctKey:
    """A key that both sides know, with which nobody may sign here."""
    return OctKey.import_key(SECRET)


def _fields(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}
