# SPDX-License-Identifier: MIT
"""The vhost-user back-end of the tests, without vmm: a front-end in a few lines, so that a fault of the one is not taken
for a fault of the other."""

import mmap
import os
import select
import socket
import struct

from harness import case, check

USER = 0x100000000000
MEMORY = 0x100000
DESC, AVAIL, USED, BUFFER = 0x1000, 0x2000, 0x3000, 0x4000
SIZE = 8
PROTOCOL = sum(1 << bit for bit in (0, 3, 5, 9, 10, 12, 13, 15, 16, 22))
VERSION_1, PACKED, PROTOCOL_FEATURES = 1 << 32, 1 << 34, 1 << 30
ECHO, INFO, MAP, HOLD, DIE = 0, 1, 2, 10, 18
INFO_FAULTS, INFO_RECOVERED = 9, 11


class FrontEnd:
    def __init__(self, path, features=VERSION_1 | PROTOCOL_FEATURES, inflight=None):
        self.main = socket.socket(socket.AF_UNIX)
        self.main.settimeout(10)
        self.main.connect(path)
        self.packed = bool(features & PACKED)
        if inflight is None:
            self.memory_fd = os.memfd_create("memory")
            os.ftruncate(self.memory_fd, MEMORY)
            self.memory = mmap.mmap(self.memory_fd, MEMORY)
            self.position = 0
        check(self.get(1) & features == features, "features")
        check(self.get(15) & PROTOCOL == PROTOCOL, "protocol features")
        self.send(16, struct.pack("<Q", PROTOCOL))
        self.ack(3)
        ours, theirs = socket.socketpair()
        self.channel = ours
        self.ack(21, fds=(theirs.fileno(),))
        theirs.close()
        self.ack(2, struct.pack("<Q", features))

    def send(self, request, payload=b"", flags=1, fds=()):
        socket.send_fds(self.main, [struct.pack("<III", request, flags, len(payload)) + payload], fds)

    def reply(self, request):
        data, fds, _, _ = socket.recv_fds(self.main, 8192, 4)
        got, flags, size = struct.unpack_from("<III", data)
        check((got, flags, size) == (request, 5, len(data) - 12), f"reply {got} {flags:x} {size} to {request}")
        return data[12:], fds

    def get(self, request):
        self.send(request)
        return struct.unpack("<Q", self.reply(request)[0])[0]

    def ack(self, request, payload=b"", fds=()):
        self.send(request, payload, 9, fds)
        check(struct.unpack("<Q", self.reply(request)[0])[0] == 0, f"request {request} is refused")

    def start(self, inflight=None):
        """Queue 0. Returns what SET_INFLIGHT_FD was given, and what it is set up with again."""
        self.ack(37, struct.pack("<QQQQQ", 0, 0, MEMORY, USER, 0), (self.memory_fd,))
        if not inflight:
            self.send(31, struct.pack("<QQHH4x", 0, 0, 1, SIZE))
            payload, fds = self.reply(31)
            inflight = payload, fds[0]
        self.ack(32, inflight[0], (inflight[1],))
        self.kick, self.call = os.eventfd(0), os.eventfd(0)
        self.ack(8, struct.pack("<II", 0, SIZE))
        base = 0x80008000 if self.packed else struct.unpack_from("<H", self.memory, USED + 2)[0]
        self.ack(10, struct.pack("<II", 0, base))
        self.ack(9, struct.pack("<IIQQQQ", 0, 0, USER + DESC, USER + USED, USER + AVAIL, 0))
        self.ack(13, struct.pack("<Q", 0), (self.call,))
        self.ack(12, struct.pack("<Q", 0), (self.kick,))
        self.ack(18, struct.pack("<II", 0, 1))
        return inflight

    def offer(self, op, *a, data=b"", room=0):
        """One request, at the next place of the ring; its buffers are its own for the SIZE / 2 after it."""
        slot, buffer = self.position % (SIZE // 2), BUFFER + self.position % (SIZE // 2) * 0x1000
        command = struct.pack("<II4Q", op, 0, *(a + (0, 0, 0, 0))[:4]) + data
        self.memory[buffer:buffer + len(command)] = command
        parts = ((buffer, len(command), 0), (buffer + 0x800, 16 + room, 2))
        for i, (address, length, write) in enumerate(parts):
            if not self.packed:
                struct.pack_into("<QIHH", self.memory, DESC + 16 * (2 * slot + i), address, length,
                                 write | (i == 0), 2 * slot + 1)
                continue
            wrap = self.position // (SIZE // 2) % 2 == 0
            struct.pack_into("<QIHH", self.memory, DESC + 16 * (2 * slot + i), address, length, slot,
                             write | (i == 0) | (0x80 if wrap else 0x8000))
        if not self.packed:
            struct.pack_into("<H", self.memory, AVAIL + 4 + 2 * (self.position % SIZE), 2 * slot)
            struct.pack_into("<H", self.memory, AVAIL + 2, self.position + 1 & 0xffff)
        self.position += 1
        os.eventfd_write(self.kick, 1)
        return buffer + 0x800

    def answer(self, at):
        ready, _, _ = select.select([self.call], [], [], 10)
        check(ready, "no call")
        os.eventfd_read(self.call)
        return struct.unpack_from("<IIQ", self.memory, at)

    def do(self, op, *a, **more):
        return self.answer(self.offer(op, *a, **more))


def server(m, *arguments):
    process = m.start([os.path.join(os.path.dirname(m.guests), "servers", "vhost-user-server"), m.path("server"),
                       *arguments])
    m.wait_for(process, b"ready\n")
    return process


for _name, _features in (("split", VERSION_1 | PROTOCOL_FEATURES), ("packed", VERSION_1 | PROTOCOL_FEATURES | PACKED)):
    @case(f"vhost-user server: a {_name} ring, and shared memory")
    def _(m, features=_features):
        server(m, "shmem=0,0x3000")
        f = FrontEnd(m.path("server"), features)
        f.send(44)
        sizes = f.reply(44)[0]
        check(len(sizes) == 2056 and struct.unpack_from("<II3Q", sizes) == (1, 0, 0, 0x3000, 0), "GET_SHMEM_CONFIG")
        f.start()
        for i in range(11):
            text = bytes([i]) * 100
            at = f.offer(ECHO, data=text, room=200)
            check(f.answer(at) == (0, 0, 100) and f.memory[at + 16:at + 117] == text + b"\0", "ECHO")
        at = f.offer(MAP, 1 | 1 << 8, 0x1000, 0x2000, 0x1000)
        f.channel.settimeout(10)
        data, fds, _, _ = socket.recv_fds(f.channel, 100, 4)
        check(struct.unpack("<IIIB7xQQQQ", data) == (9, 9, 40, 1, 0x1000, 0x2000, 0x1000, 1) and len(fds) == 1, "MAP")
        f.channel.send(struct.pack("<IIIQ", 9, 5, 8, 7))
        check(f.answer(at)[0] == 7, "answer to MAP")
        check(f.do(INFO, INFO_FAULTS) == (0, 0, 0), "faults")
        f.send(11, struct.pack("<II", 0, 0))
        base = struct.unpack("<II", f.reply(11)[0])[1]
        # 13 requests, of two descriptors each where the ring is packed: three times round it, and two.
        check(base == (0x00020002 if f.packed else 13), f"base {base:x}")

    @case(f"vhost-user server: a {_name} ring outlives it")
    def _(m, features=_features):
        process = server(m)
        f = FrontEnd(m.path("server"), features)
        inflight = f.start()
        check(f.do(ECHO) == (0, 0, 0), "ECHO")
        held = f.offer(HOLD)
        check(f.do(INFO, INFO_RECOVERED) == (0, 0, 0), "INFO")
        f.offer(DIE)
        check(process.wait(10) == 9, "status")
        server(m)
        again = FrontEnd(m.path("server"), features, inflight)
        again.memory, again.memory_fd, again.position = f.memory, f.memory_fd, f.position
        again.start(inflight)
        os.eventfd_write(again.kick, 1)
        check(again.answer(BUFFER + 0x3800) == (0, 0, 0), "the request it died of")
        # Held again, as nothing else of it has been answered; and the ring goes on behind both.
        check(f.memory[held:held + 16] == bytes(16), "held")


@case("vhost-user server: what it finds wrong")
def _(m):
    process = server(m, "without-protocol=12")
    f = socket.socket(socket.AF_UNIX)
    f.connect(m.path("server"))
    for request, payload, said in ((99, b"", "unknown request"), (8, struct.pack("<II", 77, 8), "no such queue"),
                                   (16, struct.pack("<Q", 1 << 12), "not offered"), (2, b"123", "size of a request")):
        f.send(struct.pack("<III", request, 1, len(payload)) + payload)
        seen = b""
        while said.encode() not in seen:
            seen = m.wait_for(process, b"\n")
            check(seen.startswith(b"fault: "), str(seen))
