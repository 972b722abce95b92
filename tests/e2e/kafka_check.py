"""What the topics hold, read by an outsider, against the archive: the same clicks in the same
order, whatever was sent twice, and live verdicts as the highest epoch recorded them."""
import struct

import archive
import kafka_wire
from harness import check, oracle

BLOCK = struct.Struct("<4sIQQQ")


def prefix_of(record):
    """(incarnation, partition, seq) of a click's record."""
    partition, at = archive.varint(record, 8)
    seq, at = archive.varint(record, at)
    return record[:8], partition, seq


def accepted(topics, topic, partition):
    """(Kafka's offset, incarnation, seq) of each click that a reader must accept, in order,
    and how many others there are. A reader accepts what follows; the rest is sent again."""
    due, rows, others = {}, [], 0
    for message in topics.records(topic, partition):
        head, value = message.value[:1], message.value[5:]
        check(head == b"\0", f"{topic} {partition} offset {message.offset}: no wire format")
        incarnation, inside, seq = prefix_of(value)
        check(inside == partition == oracle.partition_of(message.key.decode()),
              f"{topic} {partition} offset {message.offset}: key {message.key} is of another")
        if seq == due.get(incarnation, 0):
            due[incarnation] = seq + 1
            rows.append((message.offset, incarnation, seq))
        else:
            others += 1
    return rows, others


def verdicts(topics, topic, partition):
    """Kafka's offset -> the packed verdict of the highest epoch, and each block's epoch."""
    best, epochs = {}, set()
    for message in topics.records(topic, partition):
        magic, count, base, epoch, _ = BLOCK.unpack_from(message.value)
        check(magic == b"CLV1" and len(message.value) == BLOCK.size + 8 * count,
              f"{topic} {partition} offset {message.offset}: no block of verdicts")
        epochs.add(epoch)
        for i, packed in enumerate(struct.unpack_from(f"<{count}Q", message.value, BLOCK.size)):
            if best.get(base + i, (0, 0))[0] <= epoch:
                best[base + i] = (epoch, packed)
    return {offset: packed for offset, (_, packed) in best.items()}, len(epochs)


def topics_equal(stack, rows, live=True):
    """rows are archive.clicks(). Returns a text that says how much was sent again."""
    topics = kafka_wire.Topics(stack.addresses())
    mine = {}
    for row in rows:
        mine.setdefault(row["partition"], []).append(row)
    again = owners = 0
    try:
        for partition in topics.leaders(stack.prefix + "raw_clicks"):
            sent, others = accepted(topics, stack.prefix + "raw_clicks", partition)
            want = sorted(mine.get(partition, []), key=lambda r: (r["received_at"], r["seq"]))
            got = [(incarnation, seq) for _, incarnation, seq in sent]
            check(got == [(r["incarnation"], r["seq"]) for r in want],
                  f"partition {partition}: {len(got)} clicks in the topic, {len(want)} archived, or "
                  "in another order")
            again += others
            if live:
                best, epochs = verdicts(topics, stack.prefix + "click_verdicts", partition)
                owners += epochs
                verdicts_same(partition, sent, want, best)
    finally:
        topics.close()
    return f"{again} clicks stand in the topic again; {owners} claims of a partition"


def verdicts_same(partition, sent, want, best):
    bad = []
    for (offset, _, _), row in zip(sent, want):
        got = archive.verdict_unpack(best.get(offset, 0))
        if got != row["live"]:
            bad.append(f"  offset {offset} {row['id']}: recorded {got}, archived {row['live']}")
    check(not bad, f"partition {partition}: {len(bad)} live verdicts are not those of the highest "
          "epoch:\n" + "\n".join(bad[:8]))
