"""Turns of large responses, with a clock that is real and writes that are not."""

import asyncio

import pytest

from tulle.serve import valve as valves
from tulle.serve.valve import SMALL_BYTES, Valve

LARGE = (b"x" * SMALL_BYTES,)


class Writer:
    def __init__(self) -> None:
        self.started: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}

    def to(self, name: int):
        async def write(body: bytes) -> None:
            assert len(body) >= 1
            self.started.append(name)
            self.gates[name] = asyncio.Event()
            await self.gates[name].wait()

        return write


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def writer() -> Writer:
    return Writer()


async def begun(valve: Valve, writer: Writer, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.ensure_future(valve.write(LARGE, writer.to(name))) for name in range(count)]
    await settle()
    return tasks


def test_large_ones_take_turns_and_small_ones_do_not_wait(writer: Writer) -> None:
    async def main() -> None:
        valve = Valve(2 * SMALL_BYTES)
        tasks = await begun(valve, writer, 4)
        assert writer.started == [0, 1]
        small = asyncio.ensure_future(valve.write((b"s",), writer.to(9)))
        await settle()
        assert writer.started == [0, 1, 9]
        writer.gates[0].set()
        await settle()
        assert writer.started == [0, 1, 9, 2]
        for name in (1, 2, 9):
            writer.gates[name].set()
        await settle()
        writer.gates[3].set()
        await asyncio.gather(*tasks, small)

    asyncio.run(main())


def test_one_that_does_not_read_delays_others_for_a_moment_only(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(valves, "PATIENCE_S", 0.05)

    async def main() -> None:
        valve = Valve(SMALL_BYTES)
        tasks = await begun(valve, writer, 2)
        assert writer.started == [0]
        await asyncio.sleep(0.2)
        assert writer.started == [0, 1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_a_turn_that_is_not_taken_goes_on(writer: Writer) -> None:
    async def main() -> None:
        valve = Valve(SMALL_BYTES)
        tasks = await begun(valve, writer, 3)
        writer.gates[0].set()
        await asyncio.sleep(0)  # the turn of the second has come, or comes now
        tasks[1].cancel()
        await settle()
        assert writer.started[-1] in (1, 2)
        for name in writer.gates:
            writer.gates[name].set()
        await settle()
        assert 2 in writer.started
        writer.gates[2].set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_all_that_fit_go_when_a_large_one_leaves(writer: Writer) -> None:
    async def main() -> None:
        valve = Valve(2 * SMALL_BYTES)
        large = asyncio.ensure_future(valve.write((b"x" * 8 * SMALL_BYTES,), writer.to(0)))
        await settle()
        tasks = [asyncio.ensure_future(valve.write(LARGE, writer.to(name))) for name in (1, 2, 3)]
        await settle()
        assert writer.started == [0]
        writer.gates[0].set()
        await settle()
        assert writer.started == [0, 1, 2]
        for name in (1, 2):
            writer.gates[name].set()
        await settle()
        writer.gates[3].set()
        await asyncio.gather(large, *tasks)

    asyncio.run(main())
