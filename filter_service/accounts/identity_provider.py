"""OpenID Connect log-in: authorisation code flow with PKCE, state and nonce."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from filter_service.errors import AddressUnavailable, NotSignedIn
from filter_service.settings import Settings

# A shared secret never signs a token here, and "none" is no signature.
SIGNATURES = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
SECONDS = 10.0  # for one answer
LEEWAY = 60  # seconds that two clocks may differ by


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """State, nonce and PKCE verifier of a log-in under way, which the browser keeps."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls) -> "LoginAttempt":
        return cls(*(secrets.token_urlsafe(32) for _ in range(3)))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is at the provider."""

    subject: str
    email: str | None  # only if the provider has verified it


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """An OpenID provider that knows this service as a client.

    Its description and keys are asked for at every log-in: there are few, and keys change.
    """

    issuer: str
    client_id: str
    client_secret: str | None

    @classmethod
    def of(cls, settings: Settings) -> "IdentityProvider | None":
        """None if there is none: passwords only."""
        if settings.oidc_issuer is None or settings.oidc_client_id is None:
            return None
        return cls(settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret)

    def leave(self, back_to: str, attempt: LoginAttempt) -> str:
        """The provider's address to send the browser to; raises AddressUnavailable."""
        with self._client(back_to) as client:
            there = self._description(client)["authorization_endpoint"]
            address, _ = client.create_authorization_url(
                there, state=attempt.state, code_verifier=attempt.verifier, nonce=attempt.nonce
            )
        return str(address)

    def arrive(self, answer: Mapping[str, str], back_to: str, attempt: LoginAttempt) -> Identity:
        """Who came back with this answer; raises NotSignedIn, or AddressUnavailable as above."""
        sent, expected = answer.get("state", ""), attempt.state
        if not compare_digest(sent.encode(errors="replace"), expected.encode(errors="replace")):
            raise NotSignedIn("This log-in was begun in another browser or twice: begin again.")
        if "code" not in answer:
            raise self._refused(answer.get("error", "it sent no code"))
        with self._client(back_to) as client:
            known = self._description(client)
            token = client.fetch_token(
                known["token_endpoint"],
                grant_type="authorization_code",
                code=answer["code"],
                code_verifier=attempt.verifier,
            )
            keys = _json(client, known["jwks_uri"])
            return self._read(token, KeySet.import_key_set(keys), attempt)

    def _read(self, token: dict[str, Any], keys: KeySet, attempt: LoginAttempt) -> Identity:
        signed = jwt.decode(token["id_token"], keys, algorithms=SIGNATURES)
        claims = CodeIDToken(
            signed.claims,
            signed.header,
            {
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self.client_id},
                "sub": {"essential": True},
            },
            {
                "nonce": attempt.nonce,
                "client_id": self.client_id,
                "access_token": token.get("access_token"),
            },
        )
        claims.validate(leeway=LEEWAY)
        verified = claims.get("email_verified") is True
        return Identity(str(claims["sub"]), str(claims["email"]) if verified else None)

    def _description(self, client: OAuth2Client) -> dict[str, Any]:
        address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        description: dict[str, Any] = _json(client, address)
        if description["issuer"] != self.issuer:
            raise NotSignedIn(
                f"The provider calls itself {description['issuer']!r}, not {self.issuer!r}: set "
                "FILTER_SERVICE_OIDC_ISSUER to its exact name."
            )
        return description

    @contextmanager
    def _client(self, back_to: str) -> Iterator[OAuth2Client]:
        """What goes wrong at the provider leaves as an error of ours."""
        try:
            with OAuth2Client(
                self.client_id,
                self.client_secret,
                token_endpoint_auth_method=None if self.client_secret else "none",
                scope="openid email",
                redirect_uri=back_to,
                code_challenge_method="S256",
                timeout=SECONDS,
            ) as client:
                yield client
        except httpx2.HTTPError as error:
            raise AddressUnavailable(
                f"The identity provider {self.issuer!r} does not answer ({error}): try again, or "
                "sign in with a password."
            ) from error
        except (AuthlibBaseError, JoseError, KeyError, ValueError) as error:
            raise self._refused(str(error)) from error

    def _refused(self, why: str) -> NotSignedIn:
        return NotSignedIn(
            f"The identity provider {self.issuer!r} did not vouch for this log-in ({why[:200]}): "
            "begin again."
        )


def _json(client: OAuth2Client, address: str) -> Any:  # noqa: ANN401  (as JSON is)
    return client.request("GET", address, withhold_token=True).raise_for_status().json()
