"""A resident client: does on demand, over a Unix socket, what a test asks for; one JSON line in, one JSON line out.

    python requester.py /control/NAME.sock

It lives in a pod (the socket is in a hostPath volume) or on the host, and makes thousands of requests without anybody
starting thousands of processes. A job that has no end of its own ends when the asking side closes its half.
"""

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import wire_http as wire

Job = dict[str, Any]
Answer = dict[str, Any]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def outcome_of(error: BaseException) -> str:
    """One word for how it failed."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, socket.gaierror):
        return "unknown name"
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason}"
    if isinstance(error, ConnectionError | EOFError):
        return "reset"
    return f"{type(error).__name__}: {error}"


EXPECTED = (OSError, EOFError, TimeoutError)


def tls_of(job: Job) -> ssl.SSLContext | None:
    """A context that shows what is served, and judges it only where the job names roots."""
    if not job.get("tls"):
        return None
    # Not `create_default_context`: reading the machine's roots costs more than a handshake.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if job.get("roots"):
        context.load_verify_locations(job["roots"])
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if job.get("certificate"):
        context.load_cert_chain(job["certificate"], job["key"])
    if job.get("alpn"):
        context.set_alpn_protocols(job["alpn"])
    return context


async def connect(job: Job) -> Streams:
    """To `address` if given, else to `host`; TLS with `sni`."""
    context = tls_of(job)
    return await asyncio.open_connection(
        job.get("address") or job["host"],
        job["port"],
        ssl=context,
        server_hostname=(job.get("sni") or job["host"]) if context else None,
        limit=wire.LIMIT,
    )


class Pool:
    """Connections of one job: kept, or one for each request."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.idle: list[Streams] = []

    async def exchange(self, *, keep: bool) -> wire.Message:
        """One request; the connection goes back when both sides want that."""
        job = self.job
        kept = self.idle.pop() if keep and self.idle else None
        reader, writer = kept or await connect(job)
        is_kept = False
        try:
            headers = {**job.get("headers", {}), **({} if keep else {"connection": "close"})}
            body = job.get("body", "").encode() or b"x" * job.get("body_bytes", 0)
            authority = job.get("authority") or job["host"]
            writer.write(wire.request(job.get("method", "GET"), job.get("path", "/"), authority, headers, body))
            message = await wire.read_message(reader, has_body=job.get("method") != "HEAD")
            if message is None:
                raise EOFError("no answer")
            is_kept = keep and not message.is_last
            return message
        finally:
            if is_kept:
                self.idle.append((reader, writer))
            else:
                writer.close()

    def close(self) -> None:
        """End what is idle."""
        for _, writer in self.idle:
            writer.close()


def shown(message: wire.Message) -> Answer:
    """A response for the test to look at."""
    try:
        value = json.loads(message.body) if message.body else None
    except ValueError:
        value = message.body.decode(errors="replace")
    return {"status": message.status, "headers": message.headers, "body": value}


class Tally:
    """What happened, counted."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.counts: Counter[str] = Counter()
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self.slowest = 0.0
        self.last_kept: dict[str, float] = {}
        self.began = time.monotonic()

    async def one(self, pool: Pool, timeout: float, *, keep: bool) -> None:
        """One request, whatever comes of it."""
        began = time.monotonic()
        try:
            message = await asyncio.wait_for(pool.exchange(keep=keep), timeout)
        except EXPECTED as error:
            self.count(outcome_of(error), keep=keep)
            self.failures.append(f"{time.monotonic() - self.began:.2f}s {outcome_of(error)} kept={keep}")
            return
        self.slowest = max(self.slowest, time.monotonic() - began)
        version = message.headers.get("x-version", "")
        self.count(f"{message.status} {version}".strip(), keep=keep)
        if message.status >= 500:
            flags = message.headers.get("x-envoy-response-flags", message.body[:120].decode(errors="replace"))
            self.failures.append(f"{time.monotonic() - self.began:.2f}s {message.status} {flags} kept={keep}")
        if len(self.answers) < self.keep:
            self.answers.append(shown(message))

    def count(self, outcome: str, *, keep: bool) -> None:
        """One more of these, now."""
        self.counts[outcome] += 1
        if keep:
            self.last_kept[outcome] = time.monotonic() - self.began

    @property
    def answer(self) -> Answer:
        """All of it."""
        seconds = time.monotonic() - self.began
        return {
            "counts": dict(self.counts),
            "answers": self.answers,
            "failures": self.failures[:20],
            "slowest": self.slowest,
            "last_kept": self.last_kept,
            "seconds": seconds,
        }


async def http(job: Job, ended: asyncio.Event) -> Answer:
    """`n` requests by `concurrency` callers that begin `apart` seconds one after the other; `fresh` reuses no connection."""
    pool, tally = Pool(job), Tally(job.get("keep", 1))
    left = iter(range(job.get("n", 1)))

    async def caller(number: int) -> None:
        await asyncio.sleep(number * job.get("apart", 0))
        for _ in left:
            await tally.one(pool, job.get("patience", 10), keep=not job.get("fresh"))

    await asyncio.gather(*(caller(number) for number in range(job.get("concurrency", 1))))
    pool.close()
    return tally.answer


async def load(job: Job, ended: asyncio.Event) -> Answer:
    """`rate` requests a second until the asker closes; every other one on a new connection.

    On a machine that cannot keep up the rate sinks: what was missed is not made up for, and at most 100 wait for answers.
    """
    pool, tally = Pool(job), Tally(job.get("keep", 1))
    began, number = time.monotonic(), 0
    running: set[asyncio.Task[None]] = set()
    while not ended.is_set():
        number += 1
        task = asyncio.create_task(tally.one(pool, job.get("timeout", 10), keep=number % 2 == 0))
        running.add(task)
        task.add_done_callback(running.discard)
        if len(running) >= 100:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        due = began + number / job["rate"]
        began += max(0.0, time.monotonic() - due - 0.25)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    await asyncio.gather(*running)
    pool.close()
    return {**tally.answer, "sent": number}


async def stream(job: Job, ended: asyncio.Event) -> Answer:
    """One connection: send lines, read a line for each (and a greeting where the server speaks first)."""
    heard: list[str] = []
    began = time.monotonic()
    first: float | None = None
    outcome, peer, alpn = "ok", None, None
    try:
        async with asyncio.timeout(job.get("timeout", 10)):
            reader, writer = await connect(job)
            tls: Any = writer.get_extra_info("ssl_object")
            if tls is not None:
                peer, alpn = tls.getpeercert(binary_form=True).hex(), tls.selected_alpn_protocol()
            expected = [None] if job.get("greets") else []
            for text in (*expected, *job.get("lines", ["hello"])):
                if text is not None:
                    writer.write(text.encode() + b"\n")
                line = await reader.readline()
                if first is None:
                    first = time.monotonic() - began
                if not line:
                    raise EOFError("ended")
                heard.append(line.decode(errors="replace").rstrip("\n"))
            if job.get("hold"):
                await ended.wait()
            writer.close()
    except EXPECTED as error:
        outcome = outcome_of(error)
    return {"outcome": outcome, "heard": heard, "first": first, "certificate": peer, "alpn": alpn}


async def streams(job: Job, ended: asyncio.Event) -> Answer:
    """`n` such connections held open at the same time, begun `apart` seconds one after the other; they end together."""
    done = asyncio.Event()
    tasks = []
    for _ in range(job["n"]):
        tasks.append(asyncio.create_task(stream({**job, "hold": True}, done)))
        await asyncio.sleep(job.get("apart", 0))
    await asyncio.sleep(job.get("seconds", 2.0))
    done.set()
    found = await asyncio.gather(*tasks)
    return {"counts": dict(Counter(answer["outcome"] for answer in found)), "all": found}


async def pour(job: Job, ended: asyncio.Event) -> Answer:
    """`n` lines of 1,000 bytes, then nothing more is said; what comes back is read to its end."""
    reader, writer = await connect(job)
    said = b"x" * 999 + b"\n"
    got, outcome = 0, "ok"

    async def say() -> None:
        for _ in range(job["n"]):
            writer.write(said)
            await writer.drain()
        writer.write_eof()

    saying = asyncio.create_task(say())
    try:
        async with asyncio.timeout(job.get("timeout", 60)):
            while found := await reader.read(1 << 16):
                got += found.count(b"\n")
            await saying
        writer.close()
    except EXPECTED as error:
        outcome = outcome_of(error)
    finally:
        saying.cancel()
    return {"outcome": outcome, "lines": got}


async def talk(job: Job, ended: asyncio.Event) -> Answer:
    """One long connection: a line every `every` seconds, each must come back; until the asker closes."""
    reader, writer = await connect(job)
    count, outcome = 0, "ok"
    try:
        while not ended.is_set():
            writer.write(f"line {count}\n".encode())
            line = await asyncio.wait_for(reader.readline(), job.get("timeout", 10))
            if not line.endswith(f"line {count}\n".encode()):
                raise EOFError("ended")
            count += 1
            await asyncio.sleep(job.get("every", 0.05))
        writer.close()
    except EXPECTED as error:
        outcome = outcome_of(error)
    return {"outcome": outcome, "count": count}


async def websocket(job: Job, ended: asyncio.Event) -> Answer:
    """A handshake and an echo of each line."""
    try:
        async with asyncio.timeout(job.get("timeout", 10)):
            reader, writer = await connect(job)
            headers = {
                "upgrade": "websocket",
                "connection": "Upgrade",
                "sec-websocket-version": "13",
                "sec-websocket-key": wire.websocket_key(),
            }
            writer.write(wire.request("GET", job.get("path", "/ws"), job["host"], headers))
            message = await wire.read_message(reader, has_body=False)
            if message is None or message.status != 101:
                return {"outcome": message.first if message else "no answer", "heard": []}
            heard = []
            for line in job.get("lines", ["hello"]):
                writer.write(wire.frame(line, masked=True))
                heard.append(await wire.read_frame(reader))
            writer.close()
            return {"outcome": "ok", "heard": heard}
    except EXPECTED as error:
        return {"outcome": outcome_of(error), "heard": []}


async def h2c(job: Job, ended: asyncio.Event) -> Answer:
    """One request over HTTP/2 with prior knowledge."""
    try:
        async with asyncio.timeout(job.get("timeout", 10)):
            reader, writer = await connect(job)
            body = await wire.h2_request(reader, writer, job["host"], job.get("path", "/"))
            writer.close()
            return {"outcome": "ok", "body": body.decode()}
    except EXPECTED as error:
        return {"outcome": outcome_of(error), "body": ""}


async def grpc(job: Job, ended: asyncio.Event) -> Answer:
    """A unary call, and a stream of `n` messages each way."""
    import grpc.aio

    async with grpc.aio.insecure_channel(f"{job.get('address') or job['host']}:{job['port']}") as channel:
        try:
            said = await channel.unary_unary("/echo.Echo/Say")(b"hello", timeout=job.get("timeout", 10))
            call = channel.stream_stream("/echo.Echo/Follow")(timeout=job.get("timeout", 10))
            heard = []
            for number in range(job.get("n", 3)):
                await call.write(str(number).encode())
                heard.append((await call.read()).decode())
            await call.done_writing()
            return {"outcome": "ok", "said": said.decode(), "heard": heard}
        except grpc.aio.AioRpcError as error:
            return {"outcome": error.code().name, "details": error.details()}


async def resolve(job: Job, ended: asyncio.Event) -> Answer:
    """Addresses of a name."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(job["host"], None, family=socket.AF_INET)
    except socket.gaierror:
        return {"addresses": []}
    return {"addresses": sorted({str(entry[4][0]) for entry in found})}


JOBS: dict[str, Callable[[Job, asyncio.Event], Awaitable[Answer]]] = {
    "http": http,
    "load": load,
    "stream": stream,
    "streams": streams,
    "pour": pour,
    "talk": talk,
    "websocket": websocket,
    "h2c": h2c,
    "grpc": grpc,
    "resolve": resolve,
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One job of one asker. What goes wrong with the program itself is the answer, too."""
    job = json.loads(await reader.readline())
    ended = asyncio.Event()

    async def until_closed() -> None:
        await reader.read()
        ended.set()

    watching = asyncio.create_task(until_closed())
    try:
        answer = await JOBS[job["do"]](job, ended)
    except Exception as error:  # noqa: BLE001 - the asker is told, and its test fails
        answer = {"broken": repr(error)}
    writer.write(json.dumps(answer).encode() + b"\n")
    writer.close()
    watching.cancel()


async def main() -> None:
    """Serve until SIGTERM. The socket appears under its name once it is listening."""
    path = Path(sys.argv[1].replace("NAME", os.environ.get("POD_NAME") or os.environ.get("HOSTNAME", "host")))
    scratch = path.with_suffix(f".{os.getpid()}")
    server = await asyncio.start_unix_server(serve, scratch, limit=wire.LIMIT)
    scratch.rename(path)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
