"""As much of Kafka's protocol as an outsider needs to look at topics: shares no code with the
product. Written from the protocol guide at https://kafka.apache.org/protocol and KIP-98.

    topics = Topics("127.0.0.1:9092")
    topics.ends("raw_clicks")                    {partition: (first offset, next)}
    for m in topics.records("raw_clicks", 3): ...     Message, in order of offset
    topics.delete_before("raw_clicks", 3, offset)     DeleteRecords, as retention would
"""
import collections
import socket
import struct

LIST_OFFSETS, FETCH, METADATA, DELETE_RECORDS = 2, 1, 3, 21
FETCH_BYTES = 8 << 20

Message = collections.namedtuple("Message", "offset timestamp_ms key value")


class Broken(Exception):
    pass


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, layout):
        values = struct.unpack_from(">" + layout, self.data, self.at)
        self.at += struct.calcsize(">" + layout)
        return values[0] if len(values) == 1 else values

    def bytes(self, n):
        self.at += n
        return bytes(self.data[self.at - n:self.at])

    def text(self):
        n = self.take("h")
        return None if n < 0 else self.bytes(n).decode()

    def list(self, one):
        return [one() for _ in range(self.take("i"))]

    def varint(self):
        shift = value = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return (value >> 1) ^ -(value & 1)
            shift += 7

    def varbytes(self):
        n = self.varint()
        return None if n < 0 else self.bytes(n)


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def one_topic(name, body):
    return struct.pack(">i", 1) + text(name) + struct.pack(">i", 1) + body


def lz4_block(data, out):
    """https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md"""
    at, end = 0, len(data)
    while at < end:
        token = data[at]
        at += 1
        n = token >> 4
        if n == 15:
            while True:
                n += data[at]
                at += 1
                if data[at - 1] != 255:
                    break
        out += data[at:at + n]
        at += n
        if at >= end:
            return
        back = data[at] | data[at + 1] << 8
        at += 2
        n = (token & 15) + 4
        if n == 19:
            while True:
                n += data[at]
                at += 1
                if data[at - 1] != 255:
                    break
        start = len(out) - back
        if start < 0 or back == 0:
            raise Broken("lz4: a copy from before the start")
        piece = bytes(out[start:start + n])
        out += (piece * (n // len(piece) + 1))[:n]


def lz4_frame(data):
    """https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md"""
    magic, flags = struct.unpack_from("<IB", data, 0)
    if magic != 0x184D2204:
        raise Broken("lz4: no frame")
    at = 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    out = bytearray()
    while True:
        n = struct.unpack_from("<I", data, at)[0]
        at += 4
        if n == 0:
            return bytes(out)
        block = data[at:at + (n & 0x7FFFFFFF)]
        at += len(block) + (4 if flags & 16 else 0)
        if n >> 31:
            out += block
        elif flags & 32:  # blocks are independent
            one = bytearray()
            lz4_block(block, one)
            out += one
        else:
            lz4_block(block, out)


def batch_records(data, base, attributes, base_ms, count):
    if attributes & 7 == 3:
        data = lz4_frame(data)
    elif attributes & 7:
        raise Broken(f"compression {attributes & 7} is not read here")
    reader = Reader(data)
    for _ in range(count):
        reader.varint()
        reader.take("b")
        ms, delta = reader.varint(), reader.varint()
        key, value = reader.varbytes(), reader.varbytes()
        for _ in range(reader.varint()):
            reader.varbytes()
            reader.varbytes()
        yield Message(base + delta, base_ms + ms, key, value)


def batches(data):
    """(where it starts, its size, base offset, next offset, attributes, first time, records'
    bytes, count) of each whole record batch, control batches too."""
    at = 0
    while at + 61 <= len(data):
        base, size = struct.unpack_from(">qi", data, at)
        if at + 12 + size > len(data):
            return
        magic, attributes, last, first_ms = struct.unpack_from(">4xbxxxxhiq", data, at + 12)
        if magic != 2:
            raise Broken(f"record batch of magic {magic}")
        count = struct.unpack_from(">i", data, at + 57)[0]
        yield (at, 12 + size, base, base + last + 1, attributes, first_ms,
               data[at + 61:at + 12 + size], count)
        at += 12 + size


class Link:
    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.file = self.socket.makefile("rb")

    def call(self, key, version, body):
        head = struct.pack(">hhi", key, version, 7) + text("e2e")
        self.socket.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        n = struct.unpack(">i", self.file.read(4))[0]
        data = self.file.read(n)
        if len(data) != n:
            raise Broken("the broker hung up")
        return Reader(data[4:])

    def close(self):
        self.file.close()
        self.socket.close()


class Topics:
    def __init__(self, brokers):
        self.first = brokers.split(",")[0]
        self.links = {}

    def close(self):
        for link in self.links.values():
            link.close()
        self.links = {}

    def link(self, address):
        if address not in self.links:
            self.links[address] = Link(address)
        return self.links[address]

    def leaders(self, topic):
        """Partition -> address of its leader."""
        r = self.link(self.first).call(METADATA, 1, struct.pack(">i", 1) + text(topic))
        nodes = {}
        for _ in range(r.take("i")):
            node, host, port, _ = r.take("i"), r.text(), r.take("i"), r.text()
            nodes[node] = f"{host}:{port}"
        r.take("i")
        found = {}
        for _ in range(r.take("i")):
            error, _, _ = r.take("h"), r.text(), r.take("b")
            if error:
                raise Broken(f"topic {topic}: error {error}")
            for _ in range(r.take("i")):
                _, partition, leader = r.take("hii")
                r.list(lambda: r.take("i"))
                r.list(lambda: r.take("i"))
                found[partition] = nodes.get(leader)
        return found

    def ends(self, topic):
        return {p: (self.offset(topic, p, a, -2), self.offset(topic, p, a, -1))
                for p, a in self.leaders(topic).items()}

    def offset(self, topic, partition, address, when):
        body = struct.pack(">i", -1) + one_topic(topic, struct.pack(">iq", partition, when))
        r = self.link(address).call(LIST_OFFSETS, 1, body)
        r.take("i"), r.text(), r.take("i"), r.take("i")
        error, _, offset = r.take("hqq")
        if error:
            raise Broken(f"{topic} {partition}: error {error}")
        return offset

    def records(self, topic, partition):
        """All that is held now."""
        address = self.leaders(topic)[partition]
        at = self.offset(topic, partition, address, -2)
        end = self.offset(topic, partition, address, -1)
        while at < end:
            body = struct.pack(">iiiib", -1, 500, 1, FETCH_BYTES, 0) + one_topic(
                topic, struct.pack(">iqi", partition, at, FETCH_BYTES))
            r = self.link(address).call(FETCH, 4, body)
            r.take("i"), r.take("i"), r.text(), r.take("i"), r.take("i")
            error, _, _ = r.take("hqq")
            if error:
                raise Broken(f"{topic} {partition} offset {at}: error {error}")
            r.list(lambda: r.take("qq"))
            was = at
            for _, _, base, following, attributes, ms, data, count in batches(r.bytes(r.take("i"))):
                if not attributes & 32:
                    for message in batch_records(data, base, attributes, ms, count):
                        if message.offset >= was:
                            yield message
                at = following
            if at == was:
                raise Broken(f"{topic} {partition}: nothing at offset {at} of {end}")

    def delete_before(self, topic, partition, offset):
        address = self.leaders(topic)[partition]
        body = one_topic(topic, struct.pack(">iq", partition, offset)) + struct.pack(">i", 10000)
        r = self.link(address).call(DELETE_RECORDS, 0, body)
        r.take("i"), r.take("i"), r.text(), r.take("i")
        _, low, error = r.take("iqh")
        if error:
            raise Broken(f"{topic} {partition}: error {error}")
        return low


def segment_truncate(path, keep):
    """Cuts a stopped broker's segment file behind the first `keep` batches, as a disk that lost
    writes would. Returns (batches cut, first offset that is gone)."""
    with open(path, "r+b") as file:
        found = list(batches(file.read()))
        if keep >= len(found):
            return 0, None
        file.truncate(found[keep][0])
    return len(found) - keep, found[keep][2]
