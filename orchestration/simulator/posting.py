"""One POST over HTTP/1.1, as a coroutine: it can be broken off at any moment, which no thread in a blocking client can.

Knows nothing of webhooks. Redirects are not followed and connections not kept; only the status of the answer matters.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Final
from urllib.parse import urlsplit

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})\b")


class NoAnswer(Exception):
    """The request was not answered, or by something that is not HTTP."""


async def post(url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> int:
    """The status that `url` answers a request with.

    Args:
        timeout: seconds for all of it, from connecting to the last byte of the answer.

    Raises:
        NoAnswer: there is none within that time.
    """
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    secure = _trusted() if address.scheme == "https" else None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(address.hostname, port, ssl=secure)
            try:
                writer.write(_request(url, headers, body))
                await writer.drain()
                return await _status(reader)
            finally:
                writer.close()
    except (OSError, EOFError, UnicodeError, asyncio.LimitOverrunError) as error:
        raise NoAnswer(str(error)) from error


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities that the machine trusts; slow to read, so they are read once."""
    return ssl.create_default_context()


def _request(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    address = urlsplit(url)
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    lines = {
        "Host": address.netloc.rpartition("@")[2],
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    head = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())]
    return "\r\n".join([*head, "", ""]).encode() + body


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of an answer, which is read to its end: a body that breaks off is no answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = _STATUS.match(head)
    if status is None:
        raise NoAnswer("not HTTP")
    length = _LENGTH.search(head)
    if length:
        await reader.readexactly(int(length[1]))
    else:
        await reader.read()
    return int(status[1])
