"""Sends one message of the outbox to its receiver by HTTP, once. Owns what each answer means, and when not to send yet.

Repeating, backing off and giving up are the outbox's. A message may reach its receiver more than once (an answer can
be lost), always with the same X-Tocsin-Delivery, by which a receiver drops repeats. Secrets are put in here, last of
all, and taken out of every error text.
"""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import hmac
import logging
import re
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from urllib.parse import urlsplit

import httpx

from playbooks.action import Delivery, Secrets
from playbooks.references import names_in, reveal
from tocsin.errors import ConfigError, Rejected, RetryLater

DELIVERY_HEADER = "X-Tocsin-Delivery"
SIGNATURE_HEADER = "X-Tocsin-Signature"
MAX_ANSWER_BYTES = 2048
EXPLANATION_S = 1.0
"""How long the body of an answer that is no success is read, for the error text."""
MAX_RETRY_AFTER_S = 3600.0
N8N_NOT_FOUND_S = 60.0
"""n8n answers 404 for some seconds after its start while its health says ready."""
N8N_RETRY_S = 2.0
SLACK_INTERVAL_S = 1.0
"""A Slack webhook takes one message a second."""
MAX_REMEMBERED = 10_000

# Both log whole URLs, and a webhook's URL is a secret.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class NotYet(RetryLater):
    """No fault of the message, so no attempt: the receiver asked for a pause, or is still starting. In `after_s`."""


@dataclass(frozen=True)
class Receipt:
    """The receiver has taken it."""

    status: int
    took_s: float


@dataclass(frozen=True)
class _Ready:
    """A delivery with its secrets in place. Never logged, never stored."""

    url: str
    headers: dict[str, str]
    body: bytes
    hidden: tuple[str, ...]


class Sender:
    """Sends from any thread; each call waits for its own receiver only, and for `timeout_s` at most in all.

    TLS is verified against the system's authorities. Redirects are not followed, proxies of the environment not used.
    """

    def __init__(
        self, secrets: Secrets, *, timeout_s: float = 10.0, slack_interval_s: float = SLACK_INTERVAL_S
    ) -> None:
        self._secrets = secrets
        self._timeout_s = timeout_s
        self._slack_interval_s = slack_interval_s
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._closed_until: dict[str, float] = {}
        self._first_not_found: dict[str, float] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="delivery", daemon=True)
        self._thread.start()

    def send(self, delivery: Delivery) -> Receipt:
        """Sends it now. Raises NotYet (not taken), RetryLater (perhaps taken: send the same again) or Rejected."""
        ready = self._ready(delivery)
        self._enter(delivery, ready.url)
        started = time.monotonic()
        try:
            status, headers, answer = asyncio.run_coroutine_threadsafe(self._post(ready), self._loop).result()
        except TimeoutError as e:
            raise RetryLater(f"{_receiver(delivery)} did not answer within {self._timeout_s:g} s") from e
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError, UnicodeError) as e:
            raise Rejected(f"{_receiver(delivery)} cannot be sent to: {_shown(str(e), ready)}") from e
        except httpx.HTTPError as e:
            reason = _shown(str(e), ready) or type(e).__name__
            raise RetryLater(f"{_receiver(delivery)} cannot be reached: {reason}") from e
        if 200 <= status < 300:
            self._first_not_found.pop(delivery.id, None)
            return Receipt(status, time.monotonic() - started)
        raise self._refusal(delivery, ready, status, headers, answer)

    def close(self) -> None:
        """Ends the sender's thread. No send may be under way."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _ready(self, delivery: Delivery) -> _Ready:
        """RetryLater when a secret cannot be read: somebody can mend that, and the message is not lost meanwhile."""
        texts = [delivery.url, *delivery.headers.values(), delivery.sign_with or ""]
        try:
            hidden = {self._secrets(name) for text in texts for name in names_in(text)}
            url = reveal(delivery.url, self._secrets).strip()
            headers = {name: reveal(value, self._secrets).strip() for name, value in delivery.headers.items()}
            key = reveal(delivery.sign_with, self._secrets).strip() if delivery.sign_with else None
        except ConfigError as e:
            raise RetryLater(str(e)) from e
        if not is_http(url):
            raise Rejected(f"{_receiver(delivery)} is no http or https URL")
        # A library may quote only a part of the URL, so its parts are hidden too where the URL is a secret.
        if names_in(delivery.url):
            hidden |= {url, urlsplit(url).path}
        if key is not None:
            headers[SIGNATURE_HEADER] = signature(key, delivery.body, int(time.time()))
        headers = {"Content-Type": "application/json", "User-Agent": "Tocsin", **headers, DELIVERY_HEADER: delivery.id}
        return _Ready(
            url, headers, delivery.body, tuple(sorted((h for h in hidden if len(h) > 1), key=len, reverse=True))
        )

    def _enter(self, delivery: Delivery, url: str) -> None:
        """NotYet while the receiver is closed; takes Slack's next slot."""
        now = time.monotonic()
        with self._lock:
            until = self._closed_until.get(url, 0.0)
            if until > now:
                raise NotYet(f"{_receiver(delivery)} asked for a pause", until - now)
            if delivery.sender == "slack.send":
                self._close_until(url, now + self._slack_interval_s)

    def _close_until(self, url: str, until: float) -> None:
        if len(self._closed_until) >= MAX_REMEMBERED:
            now = time.monotonic()
            self._closed_until = {u: t for u, t in self._closed_until.items() if t > now}
        self._closed_until[url] = until

    async def _post(self, ready: _Ready) -> tuple[int, Mapping[str, str], bytes]:
        # A connection per message: a kept one may be dead, and its POST would be lost half way.
        async with (
            asyncio.timeout(self._timeout_s) as limit,
            httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=None) as client,
            client.stream("POST", ready.url, headers=ready.headers, content=ready.body) as response,
        ):
            if response.is_success:
                return response.status_code, {}, b""
            limit.reschedule(None)
            return response.status_code, response.headers, await _beginning(response)

    def _refusal(
        self, delivery: Delivery, ready: _Ready, status: int, headers: Mapping[str, str], answer: bytes
    ) -> Exception:
        text = f"{_receiver(delivery)} answered {status}: {_shown(answer.decode(errors='replace'), ready)}"
        after_s = retry_after(headers.get("retry-after"), time.time())
        if status == 429 and after_s:
            with self._lock:
                self._close_until(ready.url, time.monotonic() + after_s)
        if status in (408, 425, 429) or status >= 500:
            return RetryLater(text, after_s)
        if status == 404 and "/webhook/" in urlsplit(ready.url).path and self._may_yet_appear(delivery):
            return NotYet(f"{text} (n8n may still be starting)", N8N_RETRY_S)
        if 300 <= status < 400:
            return Rejected(f"{text} (redirects are not followed: give the URL it leads to)")
        if status == 404 and "/webhook-test/" in urlsplit(ready.url).path:
            return Rejected(f"{text} (an n8n test URL lives for 120 s: give the production URL)")
        return Rejected(text)

    def _may_yet_appear(self, delivery: Delivery) -> bool:
        if len(self._first_not_found) >= MAX_REMEMBERED:
            self._first_not_found.pop(next(iter(self._first_not_found)))
        first = self._first_not_found.setdefault(delivery.id, time.monotonic())
        return time.monotonic() - first < N8N_NOT_FOUND_S


def is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def signature(key: str, body: bytes, at: int) -> str:
    """`t=<Unix seconds>,v1=<hex>`: HMAC-SHA256 over `<seconds>.<body>`. A receiver refuses old times and repeats."""
    digest = hmac.new(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header (seconds or a date), at most an hour; None when it says nothing."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        date = email.utils.parsedate_to_datetime(text)
        at = date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(at - now, 0.0), MAX_RETRY_AFTER_S)


async def _beginning(response: httpx.Response) -> bytes:
    """The explanation, as far as it comes soon: the verdict is known without it."""
    answer = bytearray()
    try:
        async with asyncio.timeout(EXPLANATION_S):
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) >= MAX_ANSWER_BYTES:
                    break
    except (httpx.HTTPError, TimeoutError):
        pass
    return bytes(answer[:MAX_ANSWER_BYTES])


def _receiver(delivery: Delivery) -> str:
    """The receiver in words that give nothing away: the reference if the URL is secret, else only its host."""
    if names_in(delivery.url):
        return delivery.url if delivery.url.startswith("${") else "the receiver"
    return (urlsplit(delivery.url).hostname or "the receiver") if is_http(delivery.url) else "the receiver"


def _shown(text: str, ready: _Ready) -> str:
    """One printable line without secrets."""
    for secret in ready.hidden:
        text = text.replace(secret, "***")
    return "".join(c if c.isprintable() else " " for c in text)[:300].strip()
