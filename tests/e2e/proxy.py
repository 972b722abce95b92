"""A TCP proxy on loopback whose network can be cut: all in one thread of its own.

    proxy = Proxy(("127.0.0.1", 9092)) or Proxy("/path/of/redis.sock")
    proxy.port                    clients connect here
    proxy.freeze()                nothing moves any more, and nothing is closed: as when a
                                  cable is pulled; what was on its way arrives later
    proxy.cut()                   every connection is reset and new ones are refused
    proxy.restore()               as before
"""
import asyncio
import socket
import threading


class Loop:
    """The event loop of all proxies."""
    lock, loop = threading.Lock(), None

    @classmethod
    def get(cls):
        with cls.lock:
            if cls.loop is None:
                cls.loop = asyncio.new_event_loop()
                threading.Thread(target=cls.loop.run_forever, daemon=True).start()
        return cls.loop

    @classmethod
    def run(cls, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, cls.get()).result(20)


class Proxy:
    CHUNK = 65536

    def __init__(self, target, port=0):
        self.target, self.port = target, port
        self.server, self.flowing, self.writers = None, None, set()
        Loop.run(self.open())

    def freeze(self):
        Loop.run(self.stop_flow())

    def cut(self):
        Loop.run(self.close_all())

    def restore(self):
        Loop.run(self.open())

    close = cut

    # -- in the loop ----------------------------------------------------------------------

    async def open(self):
        if self.flowing is None:
            self.flowing = asyncio.Event()
        self.flowing.set()
        if self.server is None:
            self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)
            self.port = self.server.sockets[0].getsockname()[1]

    async def stop_flow(self):
        self.flowing.clear()

    async def close_all(self):
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in list(self.writers):
            abort(writer)
        self.flowing.set()

    async def connect(self):
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(*self.target)

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            await self.flowing.wait()
            far_reader, far_writer = await self.connect()
        except OSError:
            self.forget(writer)
            return
        self.writers.add(far_writer)
        await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))
        self.forget(writer)
        self.forget(far_writer)

    async def pump(self, reader, writer):
        try:
            while True:
                data = await reader.read(self.CHUNK)
                await self.flowing.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except (OSError, RuntimeError):
            abort(writer)

    def forget(self, writer):
        self.writers.discard(writer)
        abort(writer)


def abort(writer):
    """RST instead of FIN: nobody waits for the rest."""
    link = writer.transport.get_extra_info("socket")
    if link is not None:
        try:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        except OSError:
            pass
    writer.transport.abort()
