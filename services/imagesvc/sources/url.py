"""Fetches a URL in pieces, with bounds of redirects, silence and size. Knows nothing of datastores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from services.common.domain.errors import MolnError
from services.common.domain.reasons import Reason
from services.imagesvc.core.urls import check_url, may_reach
from services.imagesvc.sources.failure import SourceFailed

PIECE_BYTES = 1 << 20
MAX_REDIRECTS = 5
CONNECT_SECONDS, SILENCE_SECONDS = 15.0, 60.0
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Response:
    """A URL that answers: its size in bytes, 0 where it does not say, and its pieces."""

    size: int
    pieces: AsyncIterator[bytes]


@asynccontextmanager
async def fetched(url: str, *, is_admin: bool) -> AsyncIterator[Response]:
    """The bytes of a URL. Raises SourceFailed with what the server said; so do the pieces."""
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
    async with httpx.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=is_admin) as client:
        try:
            async with _followed(client, url, is_admin) as response:
                yield Response(_size(response), _pieces(response, url))
        except (httpx.HTTPError, httpx.InvalidURL) as err:
            is_final = isinstance(err, httpx.UnsupportedProtocol | httpx.InvalidURL)
            raise _failed(url, _words(err), is_final=is_final) from err


@asynccontextmanager
async def _followed(client: httpx.AsyncClient, url: str, is_admin: bool) -> AsyncIterator[httpx.Response]:
    """Follows redirects by hand: each address on the way is looked at."""
    at = url
    for _ in range(MAX_REDIRECTS + 1):
        # Identity: the bytes are to be those of the file, and their count that of the header.
        async with client.stream("GET", at, headers={"Accept-Encoding": "identity"}) as response:
            _check_peer(response, url, is_admin)
            if response.next_request is None:
                _check_status(response, url)
                yield response
                return
            at = str(response.next_request.url)
            _check_redirect(url, at)
    raise _failed(url, f"it redirects more than {MAX_REDIRECTS} times", is_final=True)


def _check_peer(response: httpx.Response, url: str, is_admin: bool) -> None:
    """The address that was really connected to, whatever a name server said; nothing of the answer is read yet."""
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("server_addr") if stream is not None else None
    if peer and not may_reach(str(peer[0]), is_admin=is_admin):
        problem = f"{peer[0]} is the image service's own machine or link, from where only administrators may fetch"
        raise _failed(url, problem, is_final=True)


def _check_redirect(url: str, to: str) -> None:
    try:
        check_url("location", to)
    except MolnError as err:
        raise _failed(url, f"it redirects to {to}, which is not an http(s) address", is_final=True) from err


def _check_status(response: httpx.Response, url: str) -> None:
    if response.status_code != httpx.codes.OK:
        words = f"the server answers {response.status_code} {response.reason_phrase}".rstrip()
        raise _failed(url, words, is_final=response.status_code not in _RETRIED)


def _size(response: httpx.Response) -> int:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else 0


async def _pieces(response: httpx.Response, url: str) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_bytes(PIECE_BYTES):
            yield piece
    except httpx.HTTPError as err:
        raise _failed(url, _words(err), is_final=False) from err


def _words(err: Exception) -> str:
    if isinstance(err, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(err, httpx.TimeoutException):
        return f"nothing came for {SILENCE_SECONDS:g} s"
    return str(err) or type(err).__name__


def _failed(url: str, problem: str, *, is_final: bool) -> SourceFailed:
    return SourceFailed(Reason.DOWNLOAD_FAILED, f"{url} cannot be fetched: {problem}", is_final=is_final)
