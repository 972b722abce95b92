"""Reads the archive as an outsider would: the manifest's lists and Avro container files.

Written from the Avro 1.11 and Snappy specifications; shares no code with the product.
"""
import collections
import glob
import json
import os
import struct
import uuid
import zlib

KINDS = ("none", "billable", "suspicious", "invalid", "duplicate", "quarantined",
         "over_budget")


def varint(data, at):
    shift = value = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def snappy(data):
    """The raw format: https://github.com/google/snappy/blob/main/format_description.txt"""
    at = shift = size = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    out = bytearray()
    end = len(data)
    while at < end:
        tag = data[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            n = tag >> 2
            if n >= 60:
                more = n - 59
                n = int.from_bytes(data[at:at + more], "little")
                at += more
            out += data[at:at + n + 1]
            at += n + 1
            continue
        if kind == 1:
            n, back = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[at]
            at += 1
        elif kind == 2:
            n, back = (tag >> 2) + 1, data[at] | data[at + 1] << 8
            at += 2
        else:
            n, back = (tag >> 2) + 1, int.from_bytes(data[at:at + 4], "little")
            at += 4
        start = len(out) - back
        if start < 0:
            raise ValueError("snappy: a copy from before the start")
        if back >= n:
            out += out[start:start + n]
        else:
            piece = bytes(out[start:])
            out += (piece * (n // back + 1))[:n]
    if len(out) != size:
        raise ValueError("snappy: another length than promised")
    return bytes(out)


def decoder(schema, names):
    """A function (data, at) -> (value, at)."""
    if isinstance(schema, list):
        branches = [decoder(s, names) for s in schema]

        def union(data, at):
            i, at = varint(data, at)
            return branches[i](data, at)
        return union
    if isinstance(schema, str) and schema in names:
        return names[schema]
    kind = schema if isinstance(schema, str) else schema["type"]
    if isinstance(kind, (dict, list)):
        return decoder(kind, names)
    if kind in ("int", "long"):
        return varint
    if kind == "null":
        return lambda data, at: (None, at)
    if kind == "boolean":
        return lambda data, at: (data[at] != 0, at + 1)
    if kind == "fixed":
        size = schema["size"]
        made = lambda data, at: (data[at:at + size], at + size)  # noqa: E731
        names[schema["name"]] = made
        return made
    if kind in ("bytes", "string"):
        text = kind == "string"

        def run(data, at):
            n, at = varint(data, at)
            value = data[at:at + n]
            return (value.decode() if text else value), at + n
        return run
    if kind == "enum":
        symbols = schema["symbols"]

        def symbol(data, at):
            i, at = varint(data, at)
            return symbols[i], at
        names[schema["name"]] = symbol
        return symbol
    assert kind == "record", kind
    fields = [(f["name"], decoder(f["type"], names)) for f in schema["fields"]]

    def record(data, at):
        value = {}
        for name, decode in fields:
            value[name], at = decode(data, at)
        return value, at
    return record


def header(path, data):
    """Metadata, and where the sync marker begins."""
    if data[:4] != b"Obj\x01":
        raise ValueError(f"{path}: no Avro file")
    at, meta = 4, {}
    while True:
        n, at = varint(data, at)
        if n == 0:
            return meta, at
        if n < 0:
            _, at = varint(data, at)
        for _ in range(abs(n)):
            size, at = varint(data, at)
            key = data[at:at + size].decode()
            at += size
            size, at = varint(data, at)
            meta[key] = data[at:at + size]
            at += size


def avro_meta(path):
    with open(path, "rb") as file:
        return header(path, file.read())[0]


def avro_rows(path):
    with open(path, "rb") as file:
        data = file.read()
    meta, at = header(path, data)
    sync, at = data[at:at + 16], at + 16
    codec = meta.get("avro.codec", b"null").decode()
    decode = decoder(json.loads(meta["avro.schema"]), {})
    rows = []
    while at < len(data):
        n, at = varint(data, at)
        size, at = varint(data, at)
        block = data[at:at + size]
        at += size
        if data[at:at + 16] != sync:
            raise ValueError(f"{path}: a sync marker is wrong")
        at += 16
        if codec == "snappy":
            block, crc = snappy(block[:-4]), struct.unpack(">I", block[-4:])[0]
            if zlib.crc32(block) != crc:
                raise ValueError(f"{path}: a block's CRC is wrong")
        elif codec != "null":
            raise ValueError(f"{path}: codec {codec} is not read here")
        inside = 0
        for _ in range(n):
            row, inside = decode(block, inside)
            rows.append(row)
        if inside != len(block):
            raise ValueError(f"{path}: a block has {len(block) - inside} bytes too many")
    return rows


File = collections.namedtuple("File", "path partition base last clicks")


def manifest(archive_dir):
    """Listed files in order of partition and offset; checks that ranges join."""
    files = []
    for path in sorted(glob.glob(f"{archive_dir}/manifest/p*.log")):
        partition = int(os.path.basename(path)[1:-4])
        due = 0
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                words = line.split()
                if not line.endswith("\n") or not words or words[0] != "file":
                    continue
                file = File(words[1], partition, int(words[2]), int(words[3]), int(words[6]))
                if file.base != due or file.last - file.base + 1 != file.clicks:
                    raise ValueError(f"{path}: {line.strip()}: does not follow offset {due}")
                due = file.last + 1
                files.append(file)
    return files


def verdict_unpack(packed):
    """The recorded live verdict: kind, reason's number, warming."""
    packed &= (1 << 64) - 1
    return KINDS[packed & 255], packed >> 8 & 255, bool(packed >> 16 & 1)


def clicks(archive_dir, live=True, final=True):
    """Each archived click in order of receipt, with `id`, `live` and `final` beside it."""
    rows = []
    for file in manifest(archive_dir):
        part = avro_rows(f"{archive_dir}/{file.path}")
        if len(part) != file.clicks:
            raise ValueError(f"{file.path}: {len(part)} rows, {file.clicks} are listed")
        beside = f"{archive_dir}/{file.path[:-5]}"
        lives = avro_rows(beside + ".live.avro") if live else [None] * len(part)
        finals = avro_rows(beside + ".final.avro") if final else [None] * len(part)
        if len(lives) != len(part) or len(finals) != len(part):
            raise ValueError(f"{file.path}: companions of another length")
        for row, one, two in zip(part, lives, finals):
            row["id"] = str(uuid.UUID(bytes=row["event_id"]))
            row["live"] = verdict_unpack(one["verdict"]) if one else None
            row["final"] = two
        rows += part
    rows.sort(key=lambda r: (r["received_at"], r["incarnation"], r["partition"], r["seq"]))
    return rows


def reasons_of(archive_dir):
    """Names of the reasons by number, from a verdict file's own schema."""
    for file in manifest(archive_dir):
        path = f"{archive_dir}/{file.path[:-5]}.final.avro"
        if os.path.exists(path):
            for field in json.loads(avro_meta(path)["avro.schema"])["fields"]:
                if field["name"] == "reason":
                    return field["type"]["symbols"]
    raise ValueError(f"{archive_dir}: nothing is judged yet")
