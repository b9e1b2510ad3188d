"""A wait that is ended from outside."""

from __future__ import annotations

import asyncio

import pytest

from shelfwise.server import errors
from shelfwise.server.errors import ApiError
from shelfwise.server.interruption import Interruption


def test_a_wait_ends_with_the_reason_that_is_given_and_the_task_goes_on():
    async def main() -> str:
        with pytest.raises(ApiError) as found, Interruption() as waiting:
            asyncio.get_running_loop().call_later(0.01, waiting.interrupt, errors.client_gone())
            await asyncio.sleep(30)
        assert found.value.code == "client_gone"
        return await asyncio.wait_for(asyncio.sleep(0, "goes on"), 1)

    assert asyncio.run(main()) == "goes on"


def test_an_interruption_that_comes_late_is_none():
    async def main() -> str:
        with Interruption() as waiting:
            waiting.finish()
            waiting.interrupt(errors.client_gone())
            await asyncio.sleep(0)
        waiting.interrupt(errors.client_gone())
        return await asyncio.sleep(0, "goes on")

    assert asyncio.run(main()) == "goes on"


def test_whoever_cancels_the_task_itself_still_cancels_it():
    async def main() -> None:
        async def wait() -> None:
            with Interruption():
                await asyncio.sleep(30)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
