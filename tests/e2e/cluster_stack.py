"""A Stack whose Redis is a cluster of six nodes (deploy/redis-cluster)."""
import os
import re
import shutil
import socket
import subprocess
import time

import harness
from harness import check, wait_for

CLUSTER = os.path.join(harness.ROOT, "deploy", "redis-cluster")
NODES, PORTS, PARTITIONS = 6, 16, 16


def slot_of(tag):
    """CRC16/XMODEM, a bit at a time: not the product's own table."""
    crc = 0
    for byte in tag.encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021) & 0xffff if crc & 0x8000 else crc << 1
    return crc % 16384


class Node(harness.Redis):
    """One node alone, over TCP."""

    def __init__(self, port, timeout=5.0):  # pylint: disable=super-init-not-called
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.file = self.socket.makefile("rb")


class Redis:
    """As harness.Redis; each command goes to the master of its partition."""

    def __init__(self, ports):
        self.links, self.ranges, why = {}, None, None
        for port in ports:
            try:
                node = Node(port, 2.0)
                try:
                    self.ranges = [(a, b, master[1]) for a, b, master, *_ in node("CLUSTER", "SLOTS")]
                finally:
                    node.close()
                return
            except OSError as error:
                why = error
        raise why

    def close(self):
        for link in self.links.values():
            link.close()

    def port_of(self, words):
        partition = re.search(r"\{(p\d+)\\?\}", str(words[1])).group(1)
        slot = slot_of(partition)
        for first, last, port in self.ranges:
            if first <= slot <= last:
                return port
        raise ConnectionError(f"slot {slot} of {partition} has no master")

    def __call__(self, *words):
        return self.pipeline([words])[0]

    def pipeline(self, commands):
        shares, answers = {}, [None] * len(commands)
        for i, words in enumerate(commands):
            shares.setdefault(self.port_of(words), []).append(i)
        for port, share in shares.items():
            if port not in self.links:
                self.links[port] = Node(port)
            for i, answer in zip(share, self.links[port].pipeline([commands[i] for i in share])):
                answers[i] = answer
        return answers


def free_ports():
    """The first of PORTS free ones in a row."""
    for base in range(21520, 30000, PORTS):
        sockets = []
        try:
            for port in range(base, base + PORTS):
                one = socket.socket()
                sockets.append(one)
                one.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise harness.Failed("no free ports")


class ClusterStack(harness.Stack):
    def __init__(self, config=None, **options):
        if shutil.which("redis-server") is None:
            raise SystemExit(harness.SKIPPED)
        self.port = free_ports()
        addresses = ",".join(f"127.0.0.1:{self.port + i}" for i in range(NODES))
        super().__init__(dict({"redis.address": f"cluster:{addresses}"}, **(config or {})), **options)
        self.cluster_dir = os.path.join(self.dir, "cluster")

    def cluster(self, verb, *words):
        done = subprocess.run([CLUSTER, verb, self.cluster_dir, *map(str, words)], text=True,
                              capture_output=True, timeout=120, check=False)
        check(done.returncode == 0, f"deploy/redis-cluster {verb}: {done.stderr.strip()}")
        for i in range(1, NODES + 1):  # for the end
            try:
                self.pids[f"node {i}"] = self.node_pid(i)
            except (OSError, ValueError):
                pass

    def node_pid(self, node):
        path = os.path.join(self.cluster_dir, "redis-cluster", str(node), "pid")
        with open(path, encoding="ascii") as file:
            return int(file.read())

    def is_ours(self, pid):
        """A node's command line names its port, its working directory is below ours."""
        return super().is_ours(pid) or os.readlink(f"/proc/{pid}/cwd").startswith(self.dir)

    def servers_start(self):
        self.cluster("start", "--port", self.port)
        super().servers_start()
        self.redis_kill()  # the single one: nobody may use it by mistake

    def redis(self):
        return Redis(range(self.port, self.port + NODES))

    def node(self, number):
        return Node(self.port + number - 1)

    def live_total_or_zero(self):
        try:
            return super().live_total_or_zero()
        except AttributeError:
            return 0

    # -- roles ----------------------------------------------------------------------------

    def master_of(self, partition):
        redis = self.redis()
        try:
            return redis.port_of(("", f"{{p{partition}}}")) - self.port + 1
        finally:
            redis.close()

    def partitions_of(self, node):
        return [p for p in range(PARTITIONS) if self.master_of(p) == node]

    def replica_of(self, node):
        mine = self.port + node - 1
        for number in range(1, NODES + 1):
            if number == node:
                continue
            link = self.node(number)
            try:
                role = link("ROLE")
            finally:
                link.close()
            if role[0] == "slave" and role[2] == mine:
                return number
        raise harness.Failed(f"node {node} has no replica")

    def replication_cut(self, node):
        """From now on the replica of node gets nothing: what is written would be lost with it.
        Returns the replica, which mends when it is restarted or promoted."""
        number = self.replica_of(node)
        link = self.node(number)
        try:
            link("CONFIG", "SET", "masteruser", "nobody")
            link("CONFIG", "SET", "masterauth", "nothing")
            link("CLIENT", "KILL", "TYPE", "master")
            time.sleep(0.2)
            check(link("ROLE")[3] != "connected", "replication is cut")
        finally:
            link.close()
        return number

    def replication_mend(self, number):
        link = self.node(number)
        try:
            link("CONFIG", "SET", "masteruser", "")
            link("CONFIG", "SET", "masterauth", "")
        finally:
            link.close()

    def promoted_wait(self, partition, dead, seconds=20):
        return wait_for(f"another node is the master of partition {partition}", seconds,
                        lambda: self.promoted(partition, dead))

    def promoted(self, partition, dead):
        try:
            master = self.master_of(partition)
            return master if master != dead else 0
        except (OSError, harness.Failed):
            return 0
