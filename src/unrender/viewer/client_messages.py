"""What a page may send: few kinds of small messages, no faster than a fixed rate."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

EXPECTED = frozenset({"ViewerCameraMessage", "GuiUpdateMessage", "SceneNodeClickMessage"})
"""Messages that the viewer uses. Others are dropped: uploads, requests for a public address, drags, commands."""
MAX_BYTES = 1 << 16
"""Longest message."""
MAX_TEXT, MAX_ITEMS = 1000, 16
"""Longest text, and most numbers in one value."""
LENGTHS = {"wxyz": 4, "position": 3, "look_at": 3, "up_direction": 3}
"""Vectors of cameras and their lengths. Of others, viser prints a warning with what was sent."""
MESSAGES_PER_SECOND = 400.0
"""Of all pages together; a page with a moving camera sends 20."""


def is_expected(data: bytes) -> bool:
    """Return whether a message is one that the viewer uses; raise ValueError if it is no message at all."""
    import msgspec

    try:
        message: Any = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"not a message: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ValueError("not a message: it has no type")
    if message["type"] not in EXPECTED:
        return False
    updates = message.pop("updates", {"value": None})
    return (
        isinstance(updates, dict)
        and updates.keys() == {"value"}
        and all(_is_simple(value) for value in (*message.values(), *updates.values()))
        and all(
            isinstance(message[name], list) and len(message[name]) == length
            for name, length in LENGTHS.items()
            if name in message
        )
        and _is_readable(data)
    )


def _is_readable(data: bytes) -> bool:
    """Return whether viser can read a message: it closes the connection for values such as a height of NaN."""
    from viser._messages import Message

    try:
        Message.deserialize(data)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, Warning):
        return False
    return True


def _is_simple(value: object) -> bool:
    """Return whether a value is a number, a short text, or a few of them."""
    if isinstance(value, list):
        return len(value) <= MAX_ITEMS and all(
            _is_simple(item) and not isinstance(item, list) for item in value
        )
    return (
        value is None
        or isinstance(value, bool | int | float)
        or (isinstance(value, str) and len(value) <= MAX_TEXT)
    )


class Pacer:
    """Delays messages that come faster than a rate, so that their senders have to wait."""

    def __init__(
        self,
        per_second: float = MESSAGES_PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval, self._clock, self._sleep, self._next = 1 / per_second, clock, sleep, 0.0

    async def wait(self) -> None:
        """Wait for the turn of a message. Up to a second of messages may come at once."""
        now = self._clock()
        self._next = max(self._next, now - 1) + self._interval
        if self._next > now:
            await self._sleep(self._next - now)
