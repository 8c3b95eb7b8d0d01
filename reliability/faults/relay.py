"""Forwards TCP connections from one port of loopback to another: ``python -m reliability.faults.relay FROM TO``.

Prints "listening" when it accepts connections. Killing it makes the server behind it unreachable without losing what
that server holds. Two more arguments make the server behind it a distant one: milliseconds until an answer comes back,
and MB/s of each connection.
"""

import asyncio
import contextlib
import sys


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float = 0, bytes_per_s: float = 0
) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            await asyncio.sleep(delay_s + (len(data) / bytes_per_s if bytes_per_s else 0))
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(port: int, target_port: int, delay_s: float = 0, bytes_per_s: float = 0) -> None:
    """Forwards until it is killed."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", target_port)
        there = _copy(reader, target_writer, bytes_per_s=bytes_per_s)
        await asyncio.gather(there, _copy(target_reader, writer, delay_s))

    server = await asyncio.start_server(forward, "127.0.0.1", port, reuse_address=True)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    ports, shape = [int(word) for word in sys.argv[1:3]], [float(word) for word in sys.argv[3:5]] or [0.0, 0.0]
    asyncio.run(main(ports[0], ports[1], shape[0] / 1e3, shape[1] * 1e6))
