# SPDX-License-Identifier: MIT
"""ivshmem: the plain and the doorbell device, the server, and peers, servers and clients that misbehave."""

import fcntl
import mmap
import os
import re
import resource
import select
import shutil
import signal
import socket
import struct
import threading
import time

from harness import Failure, Skip, case, check

K = 1024
M = K * K
G = K * M
MESSAGE = struct.Struct("<q")


def wait_until(m, condition, what, seconds=10):
    end = time.monotonic() + seconds * m.slack
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds * m.slack:.0f} s")
        time.sleep(0.005)


def memfd(size, seal=False):
    fd = os.memfd_create("ivshmem", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if seal:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


def eventfd():
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def resident(process):
    with open(f"/proc/{process.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4 * K


def readable(fd, seconds):
    return bool(select.select([fd], [], [], seconds)[0])


class Peer:
    """A client of a server, written from the specification alone."""

    def __init__(self, m, path="socket"):
        self.m, self.id, self.memory, self.own, self.peers = m, None, None, [], {}
        self.socket = socket.socket(socket.AF_UNIX)
        wait_until(m, lambda: self.socket.connect_ex(m.path(path)) == 0, "a server that listens")
        check(self.receive() == (0, None), "version 0 comes first")
        self.id, fd = self.receive()
        check(0 <= self.id <= 65535 and fd is None, f"id {self.id} with {fd}")
        value, fd = self.receive()
        check(value == -1 and fd is not None, f"{value} with {fd} where the memory should be")
        self.memory = mmap.mmap(fd, os.fstat(fd).st_size)
        os.close(fd)

    def receive(self, seconds=10):
        data, fds = b"", []
        while len(data) < 8:
            if not readable(self.socket, seconds * self.m.slack):
                raise Failure(f"the server sends nothing more than {data!r}")
            more, got, _, _ = socket.recv_fds(self.socket, 8 - len(data), 4)
            check(more, "the server hung up")
            data += more
            fds += got
        check(len(fds) <= 1, f"{len(fds)} descriptors with one message")
        return MESSAGE.unpack(data)[0], fds[0] if fds else None

    def listen(self, done, seconds=10):
        """Takes messages until done()."""
        end = time.monotonic() + seconds * self.m.slack
        while not done():
            check(time.monotonic() < end, f"own {self.own}, peers {self.peers}")
            if not readable(self.socket, 0.05):
                continue
            value, fd = self.receive()
            check(0 <= value <= 65535, f"id {value}")
            if value == self.id:
                self.own.append(fd)
            elif fd is not None:
                self.peers.setdefault(value, []).append(fd)
            else:
                for old in self.peers.pop(value):
                    os.close(old)

    def close(self):
        self.socket.close()
        for fd in sum(self.peers.values(), self.own):
            os.close(fd)
        self.own, self.peers = [], {}


class Hostile:
    """A server that sends these messages: (number or bytes, descriptors...); then holds the line, or hangs up."""

    def __init__(self, m, *messages, hang_up=False, delay=0, path="socket"):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(m.path(path))
        self.listener.listen(4)
        self.messages, self.hang_up, self.delay, self.peer, self.more = messages, hang_up, delay, None, []
        m.__dict__.setdefault("servers", []).append(self)  # its sockets stay open as long as the case runs
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def send(self, message):
        value, *fds = message if isinstance(message, tuple) else (message,)
        data = value if isinstance(value, bytes) else MESSAGE.pack(value)
        socket.send_fds(self.peer, [data], fds)

    def serve(self):
        self.peer, _ = self.listener.accept()
        try:
            for message in self.messages:
                self.send(message)
                time.sleep(self.delay)
        except OSError:  # whoever was asked nonsense has hung up
            pass
        if self.hang_up:
            self.peer.close()


def start_server(m, *arguments, vectors=4, size="64K", backing=("--memfd",)):
    process = m.start([m.vmm, "ivshmem-server", "--socket", m.path("socket"), *backing, "--size", size,
                       "--vectors", str(vectors), *map(str, arguments)])
    wait_until(m, lambda: os.path.exists(m.path("socket")) or process.poll() is not None, "a socket")
    return process


def stop_server(m, process, err="^$"):
    process.send_signal(signal.SIGTERM)
    m.finish(process).expect(0, err=err)
    check(not os.path.exists(m.path("socket")), "the socket is left behind")


def doorbell(m, text, *options, vectors=4, keys="", **kwargs):
    return m.run("ivshmem", "--ivshmem", f"socket={m.path('socket')},vectors={vectors}{keys}", *options, "--cmdline",
                 f"{text} vectors={vectors}", **kwargs)


def start_doorbell(m, text, *options, vectors=4, keys="", files=None):
    """files: open files that it may have."""
    limit = files and {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))}
    return m.start(m.command("ivshmem", "--ivshmem", f"socket={m.path('socket')},vectors={vectors}{keys}", *options,
                             "--cmdline", f"{text} vectors={vectors}"), **limit or {})


def one_line(r):
    check(len(r.err.splitlines()) == 1, str(r))
    return r


# The plain device

@case("ivshmem: plain, registers, BARs, memory from both sides")
def _(m):
    path = m.file("shm", bytes(8) + struct.pack("<Q", 4711) + bytes(64 * K - 16))
    r = m.run("ivshmem", "--ivshmem", f"path={path},size=64K", "--stats", "stats.json", "--cmdline",
              "test=plain expect=4711").expect(0, err="^$")
    with open(path, "rb") as f:
        check(struct.unpack("<Q", f.read(16)[8:])[0] == 0x600d, str(r))
    # Only those while it was not where the guest looked.
    check(m.stats()["device_accesses"].get("ivshmem0.bar2", 0) == 0, str(m.stats()))


@case("ivshmem: plain, the file is made")
def _(m):
    m.run("ivshmem", "--ivshmem", f"path={m.path('new')},size=1M", "--cmdline", f"test=plain size={M}").expect(0)
    st = os.stat(m.path("new"))
    check(st.st_size == M and st.st_mode & 0o777 == 0o600, str(st))


@case("ivshmem: plain, read-only")
def _(m):
    data = os.urandom(8) + struct.pack("<Q", 99) + os.urandom(4080)
    path = m.file("shm", data)
    os.chmod(path, 0o400)
    m.run("ivshmem", "--ivshmem", f"path={path},size=4K,readonly=on", "--cmdline", "test=readonly expect=99").expect(0)
    with open(path, "rb") as f:
        check(f.read() == data, "the guest has changed the file")


@case("ivshmem: plain, a memfd")
def _(m):
    fd = memfd(64 * K, seal=True)
    os.set_inheritable(fd, True)
    m.finish(m.start(m.command("ivshmem", "--ivshmem", f"path=/proc/self/fd/{fd},size=64K", "--cmdline", "test=plain"),
                     pass_fds=(fd,))).expect(0)
    check(os.pread(fd, 2, 8) == b"\x0d\x60", "nothing of it is in the memfd")
    os.close(fd)


@case("ivshmem: plain, two machines and one file, one of them read-only")
def _(m):
    path = m.path("shm")
    writer = m.start(m.command("ivshmem", "--ivshmem", f"path={path},size=64K", "--cmdline", "test=pair role=0"))
    wait_until(m, lambda: os.path.exists(path) and os.stat(path).st_size or writer.poll() is not None, "the file")
    reader = m.start(m.command("ivshmem", "--ivshmem", f"path={path},size=64K", "--ivshmem",
                               f"path={path},size=64K,readonly=on", "--cmdline", "test=pair role=1"))
    for process in (writer, reader):
        m.finish(process).expect(0, out="pair", err="^$")


@case("ivshmem: plain, hugetlbfs")
def _(m):
    with open("/proc/mounts", encoding="ascii") as f:
        mounts = [line.split()[1] for line in f if " hugetlbfs " in line]
    with open("/proc/meminfo", encoding="ascii") as f:
        free = int(re.search(r"HugePages_Free: *(\d+)", f.read()).group(1))
    if not mounts or free < 2 or not os.access(mounts[0], os.W_OK):
        raise Skip("no free huge pages, or hugetlbfs is not mounted")
    path = os.path.join(mounts[0], f"vmm-test-{os.getpid()}")
    try:
        m.run("ivshmem", "--ivshmem", f"path={path},size=4M", "--cmdline", f"test=plain size={4 * M}").expect(0)
    finally:
        os.unlink(path)


@case("ivshmem: plain, 8 GiB above 4 GiB, beside a second device")
def _(m):
    with open(m.path("big"), "wb") as f:
        f.truncate(8 * G)
        f.seek(8)
        f.write(struct.pack("<Q", 77))
    m.run("ivshmem", "--ivshmem", f"path={m.path('big')},size=8G", "--ivshmem", f"path={m.path('second')},size=4K",
          "--cmdline", "test=readonly expect=77", "--memory", "64M").expect(17)  # it is writable, which the guest notes
    with open(m.path("big"), "rb") as f:
        check(f.read(16)[8:] == struct.pack("<Q", 1), "the guest has not reached it")


OPTIONS = (
    ("", "value is empty"), ("path=x", "needs size="), ("size=4K", "needs either"), ("path=x,socket=y", "either"),
    ("path=x,size=5K", "power of two"), ("path=x,size=2K", "power of two"), ("path=x,size=zz", "power of two"),
    ("path=x,size=4K,vectors=2", "vectors= does not go with path="), ("socket=y,size=4K", "does not go with socket="),
    ("socket=y,vectors=0", "1 to 1024"), ("socket=y,vectors=1025", "1 to 1024"), ("socket=y,msi=maybe", "on or off"),
    ("path=x,path=y,size=4K", "twice"), ("path=,size=4K", "1 to 255"), ("path=x,size=4K,", "'' is none of"),
    ("path=x,size=4K,colour=red", "none of"), ("socket=" + "x" * 108, "1 to 107"), ("path=" + "x" * 2000, "longer"),
    ("path=/nowhere/x,size=4K", "path=/nowhere/x: open: No such file"), ("path=/,size=4K", "open: Is a directory"),
    ("path=/nowhere/x,size=4K,readonly=on", "open: No such file"), ("path=/dev/null,size=4K", "mmap: No such device"),
    ("socket=/nowhere/x", "socket=/nowhere/x: connect: No such file"),
)


@case("ivshmem: options and files that cannot be")
def _(m):
    for value, text in OPTIONS:
        one_line(m.run("ivshmem", "--ivshmem", value).expect(1, err=f"--ivshmem.*{re.escape(text)}"))
    path = m.file("small", bytes(100))
    one_line(m.run("ivshmem", "--ivshmem", f"path={path},size=4K").expect(1, err="smaller than size= .100 bytes"))
    check(os.stat(path).st_size == 100, "the file was changed")
    with open(m.path("huge"), "wb") as f:
        f.truncate(4 << 40)
    one_line(m.run("ivshmem", "--ivshmem", f"path={m.path('huge')},size=4T").expect(1, err="no room for its|Cannot allocate memory"))
    many = sum((["--ivshmem", f"path={m.path(str(i))},size=4K"] for i in range(17)), [])
    one_line(m.run("ivshmem", *many).expect(1, err="more than 16 times"))
    m.run("ivshmem", *many[:32], "--cmdline", "test=plain size=4096 nomove").expect(17)  # 4 KiB is too small for it
    r = m.run(None, "--help").expect(0)
    check("--ivshmem" in r.out and "ivshmem-server" in r.out, str(r))


# The doorbell device

for count in (1, 4, 300):
    for how in ("on", "off"):
        def self_case(count, how):
            @case(f"ivshmem: doorbell, {count} vectors, ioeventfd={how}: registers, MSI-X, bells to oneself and nobody")
            def run(m):
                server = start_server(m, vectors=count)
                exits = "exits" if how == "off" else ""
                doorbell(m, f"test=self id=0 {exits}", vectors=count, keys=f",ioeventfd={how}", timeout=40).expect(0, err="^$")
                stop_server(m, server)
        self_case(count, how)


@case("ivshmem: doorbell, a bell costs no exit; with ioeventfd=off it does")
def _(m):
    server = start_server(m)
    doorbell(m, "test=ring count=300", "--stats", "stats.json").expect(0)
    check(m.stats()["device_accesses"].get("ivshmem0.bar0", 0) < 20, str(m.stats()))
    doorbell(m, "test=ring count=300", "--stats", "stats.json", keys=",ioeventfd=off").expect(0)
    check(m.stats()["device_accesses"]["ivshmem0.bar0"] >= 300, str(m.stats()))
    stop_server(m, server)


@case("ivshmem: doorbell, more vectors than a machine has")
def _(m):
    server = start_server(m, vectors=1024)
    doorbell(m, "test=ring count=20", vectors=1024).expect(0, err="^$")
    one_line(doorbell(m, "test=ring", *["--ivshmem", f"socket={m.path('socket')},vectors=1"], vectors=1024)
             .expect(1, err="vectors=1: the devices of a machine have 1024 together"))
    stop_server(m, server)


@case("ivshmem: doorbell, INTx")
def _(m):
    server = start_server(m)
    for i in range(2):
        doorbell(m, f"test=intx id={i}", keys=",msi=off").expect(0, err="^$")
    stop_server(m, server)


@case("ivshmem: doorbell, resets")
def _(m):
    server = start_server(m)
    r = doorbell(m, "test=reset", "--stats", "stats.json").expect(0, err="^$")
    check(re.findall(r"boot (\d)\n", r.out) == list("0123"), str(r))
    check(m.stats()["resets"] == 3, str(m.stats()))
    stop_server(m, server)


def sanitized(m):
    with open(m.vmm, "rb") as f:
        data = f.read()
    return b"__tsan_init" in data or b"__asan_init" in data


def messages_case(name, count, keys):
    @case(f"ivshmem: two guests, {name} by doorbell and memory")
    def run(m):
        number = count // 10 if sanitized(m) else count  # there it is threads that matter
        server = start_server(m, vectors=2)
        guests = [start_doorbell(m, f"test=messages role={i} count={number}", vectors=2, keys=keys[i]) for i in (1, 0)]
        results = [m.finish(g, 120).expect(0, err="^$") for g in guests]
        check(re.search(f"{number} messages in order, woken [0-9]", results[0].out), str(results[0]))
        stop_server(m, server)


messages_case("a million messages", 1000000, ("", ""))
messages_case("messages, one without ioeventfd,", 100000, ("", ",ioeventfd=off"))


class Ordered:
    """A guest with test=serve, by the memory of a peer."""

    def __init__(self, m, peer, *options, **kwargs):
        self.m, self.peer, self.orders = m, peer, 0
        peer.memory[0:64] = bytes(64)
        self.process = start_doorbell(m, "test=serve", *options, **kwargs)
        wait_until(m, lambda: self.word(4) == 0xffffffff or self.process.poll() is not None, "a guest that serves")
        self.id = self.word(16)

    def word(self, at):
        return struct.unpack_from("<I", self.peer.memory, at)[0]

    def order(self, value):
        self.orders += 1
        struct.pack_into("<I", self.peer.memory, 8, value)
        struct.pack_into("<I", self.peer.memory, 0, self.orders)

    def ring(self, peer, vector):
        self.order(peer << 16 | vector)
        wait_until(self.m, lambda: self.word(4) == self.orders, "the guest's answer")

    def end(self, err="^$"):
        self.order(0xffffffff)
        return self.m.finish(self.process).expect(0, err=err)


def ring_and_wait(m, guest, peer, vector=0):
    guest.ring(peer.id, vector)
    check(readable(peer.own[vector], 5 * m.slack), "the bell did not ring")
    check(os.eventfd_read(peer.own[vector]) == 1, "it rang more than once")


for how in ("on", "off"):
    def peers_case(how):
        @case(f"ivshmem: a guest and processes of the host, coming and going, ioeventfd={how}")
        def run(m):
            server = start_server(m)
            first = Peer(m)
            first.listen(lambda: len(first.own) == 4)
            guest = Ordered(m, first, keys=f",ioeventfd={how}")
            first.listen(lambda: len(first.peers.get(guest.id, ())) == 4)
            for vector in range(4):
                ring_and_wait(m, guest, first, vector)
            for n in range(1, 11):
                os.eventfd_write(first.peers[guest.id][0], 1)
                wait_until(m, lambda: guest.word(12) == n, "an interrupt")
            check(guest.word(20) == 0, "one on the other vector")
            for _ in range(5):
                later = Peer(m)
                later.listen(lambda: len(later.own) == 4 and len(later.peers) == 2)
                first.listen(lambda: len(first.peers.get(later.id, ())) == 4)
                wait_until(m, lambda: not readable(later.own[1], 0) and not guest.ring(later.id, 1)
                           or readable(later.own[1], 0), "the newcomer's bell")
                later.close()
                first.listen(lambda: later.id not in first.peers)
                guest.ring(later.id, 1)
            ring_and_wait(m, guest, first)
            guest.end()
            first.listen(lambda: not first.peers)
            first.close()
            stop_server(m, server)
    peers_case(how)


@case("ivshmem: an id that comes back rings the new peer, and only it")
def _(m):
    shared, own = memfd(64 * K), [eventfd() for _ in range(2)]
    old, new = eventfd(), eventfd()
    server = Hostile(m, 0, 3, (-1, shared), (9, old), *((3, fd) for fd in own))

    class Memory:
        memory = mmap.mmap(shared, 64 * K)
    guest = Ordered(m, Memory, vectors=2)
    guest.ring(9, 0)
    check(readable(old, 5) and os.eventfd_read(old) == 1, "the old one")
    for message in (9, 9, (9, new), 12, 3, (9, new)):  # leaves, again; joins; nobody leaves; we leave; one vector more
        server.send(message)
    wait_until(m, lambda: not guest.ring(9, 1) and readable(new, 0.01), "the new one")
    check(not readable(old, 0), "the old one was rung")
    guest.end()


# Memory that goes away

def truncate_case(name, more, doorbells, cpus=1):
    @case(f"ivshmem: the memory is truncated under our feet, {name}")
    def run(m):
        fd = memfd(64 * K)
        if doorbells:
            Hostile(m, 0, 1, (-1, fd), (1, eventfd()), (2, eventfd()))
            what = f"socket={m.path('socket')}"
        else:
            os.set_inheritable(fd, True)
            what = f"path=/proc/self/fd/{fd},size=64K"
        process = m.start(m.command("ivshmem", "--ivshmem", what, "--cpus", cpus, "--cmdline", f"test=truncate {more}"),
                          pass_fds=(fd,))
        m.wait_for(process, b"ready\n")
        os.ftruncate(fd, 0)
        r = m.finish(process).expect(0, out="alive", err="the shared memory was truncated")
        one_line(r)
        os.close(fd)


truncate_case("plain, read", "", False)
truncate_case("doorbell, read", "", True)
truncate_case("plain, write", "write", False)
truncate_case("doorbell, write, one of 3 CPUs", "write", True, cpus=3)


# Servers that make no sense

def refused_case(name, text, *messages, **how):
    @case(f"ivshmem: hostile server, {name}")
    def run(m):
        fds = {"memory": memfd(64 * K), "empty": memfd(0), "eventfd": eventfd(), "zero": os.open("/dev/zero", os.O_RDWR),
               "odd": memfd(100), "readonly": None}
        fds["readonly"] = os.open(f"/proc/self/fd/{fds['memory']}", os.O_RDONLY)
        Hostile(m, *(tuple(fds.get(x, x) if isinstance(x, str) else x for x in msg) if isinstance(msg, tuple) else msg
                     for msg in messages), **how)
        r = one_line(doorbell(m, "test=ring").expect(1, err=text))
        check(f"--ivshmem socket={m.path('socket')}: " in r.err, str(r))
        for fd in fds.values():
            os.close(fd)


refused_case("wrong version", "version 1, not 0", 1, 3)
refused_case("negative version", "version -1 with a descriptor, not 0", (-1, "memory"))
refused_case("a descriptor with the version", "version 0 with a descriptor", (0, "eventfd"))
refused_case("an id that is negative", "-5 is no id", 0, -5)
refused_case("an id out of range", "65536 is no id", 0, 65536)
refused_case("a descriptor with the id", "7 with a descriptor is no id", 0, (7, "eventfd"))
refused_case("no memory in its place", "came without a descriptor", 0, 3, -1)
refused_case("an unknown number", "-2 is no id of a peer", 0, 3, -2)
refused_case("a peer out of range", "65536 is no id of a peer", 0, 3, (65536, "eventfd"))
refused_case("memory of size 0", "no BAR can have .0 bytes", 0, 3, (-1, "empty"))
refused_case("memory smaller than a page", "no BAR can have .100 bytes", 0, 3, (-1, "odd"))
refused_case("memory that is no file", "is no file|mmap", 0, 3, (-1, "eventfd"))
refused_case("memory that is a device", "is no file", 0, 3, (-1, "zero"))
refused_case("memory that cannot be written", "mmap: Permission denied", 0, 3, (-1, "readonly"))
refused_case("hangs up at once", "hung up before", hang_up=True)
refused_case("hangs up after the version", "hung up before", 0, hang_up=True)
refused_case("hangs up within a message", "hung up before", 0, 3, b"\xff\xff\xff", hang_up=True)


@case("ivshmem: hostile server, silence, at once or after the id or the memory's bytes but one")
def _(m):
    processes = []
    for i, messages in enumerate(((), (0, 3), (0, 3, b"\xff" * 7))):
        Hostile(m, *messages, path=f"socket{i}")
        processes.append(m.start(m.command("ivshmem", "--ivshmem", f"socket={m.path(f'socket{i}')}")))
    for process in processes:
        one_line(m.finish(process).expect(1, err="the memory within 5 s"))


def survived_case(name, err, *messages, count=50, **how):
    """The guest starts, and rings itself; own vectors are those of id 3."""
    @case(f"ivshmem: hostile server, {name}")
    def run(m):
        names = {"memory": memfd(64 * K), "other": memfd(4 * K), "null": os.open("/dev/null", os.O_RDWR)}
        names.update((f"e{i}", eventfd()) for i in range(8))

        def value(x):
            return names.get(x, x) if isinstance(x, str) else x
        Hostile(m, *(tuple(map(value, msg)) if isinstance(msg, tuple) else msg for msg in messages), **how)
        doorbell(m, f"test=ring count={count}").expect(0, err=err)
        for fd in names.values():
            os.close(fd)


OWN = ((3, "e0"), (3, "e1"), (3, "e2"), (3, "e3"))
MEMORY = (-1, "memory")
survived_case("vectors and peers before the memory", "^$", 0, 3, (8, "e5"), *OWN, 8, MEMORY)
survived_case("the memory twice", "^$", 0, 3, MEMORY, (-1, "other"), *OWN, (-1, "null"))
survived_case("more vectors than asked for", "^$", 0, 3, MEMORY, *OWN, *OWN, *OWN, *OWN)
survived_case("surplus descriptors", "^$", 0, 3, (-1, "memory", "other", "e5"), (3, "e0", "e4", "e5", "e6"), *OWN[1:])
survived_case("more surplus descriptors than fit", "^$", 0, 3, (-1, "memory", *["e5"] * 50), (3, "e0", *["e5"] * 200))
survived_case("a message in pieces", "^$", b"\0\0\0", b"\0\0\0\0\0", b"\3", b"\0\0\0\0\0\0\0", MEMORY, *OWN, delay=0.01)
survived_case("hangs up after all", "the server is gone; ", 0, 3, MEMORY, *OWN, hang_up=True)
survived_case("hangs up in the middle of a message", "gone in the middle of a message", 0, 3, MEMORY, *OWN, b"\1\2",
              hang_up=True)
survived_case("nonsense after all", "makes no sense: 70000 is no id", 0, 3, MEMORY, *OWN, 70000)
survived_case("a descriptor that is no eventfd", "is no eventfd", 0, 3, MEMORY, (8, "null"), *OWN, (9, "other"))
survived_case("all leave who never came", "^$", 0, 3, MEMORY, *OWN, *range(100), *range(100))


@case("ivshmem: hostile server, one eventfd for all")
def _(m):
    shared = memfd(64 * K)
    e = eventfd()
    Hostile(m, 0, 3, (-1, shared), *((3, e) for _ in range(4)), (8, e))
    one_line(doorbell(m, "test=ring count=50").expect(0, err="ivshmem0: MSI-X vector 1: Device or resource busy"))


for count, how in ((100, "on"), (1000, "off")):  # KVM takes milliseconds to know an eventfd, or to forget it
    def churn_case(count, how):
        @case(f"ivshmem: {count} peers come and go, and no descriptor is left, ioeventfd={how}")
        def run(m):
            own, shared = [eventfd() for _ in range(2)], memfd(64 * K)
            server = Hostile(m, 0, 3, (-1, shared), *((3, fd) for fd in own))

            class Memory:
                memory = mmap.mmap(shared, 64 * K)
            guest = Ordered(m, Memory, vectors=2, keys=f",ioeventfd={how}")
            before = descriptors(guest.process)
            for n in range(count):
                fds = [eventfd() for _ in range(3)]
                for message in ((n + 10, fds[0]), (n + 10, fds[1]), (3, fds[2]), (-1, shared), n + 10):
                    server.send(message)
                for fd in fds:
                    os.close(fd)
            last = eventfd()
            server.send((9, last))
            wait_until(m, lambda: not guest.ring(9, 0) and readable(last, 0.01), "the last message's effect", 30)
            after = descriptors(guest.process)
            check(after == before + 1, f"{after} descriptors, {before} before")
            guest.end()
    churn_case(count, how)


@case("ivshmem: peers from the first to the last of 65536 ids, as many as may have open files")
def _(m):
    own, shared, e, last = [eventfd() for _ in range(2)], memfd(64 * K), eventfd(), eventfd()
    server = Hostile(m, 0, 3, (-1, shared), *((3, fd) for fd in own))
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000, 65536)
    ids = [n for n in range(0, 65536, -(-65536 // most)) if n != 3] + [65535]

    class Memory:
        memory = mmap.mmap(shared, 64 * K)
    guest = Ordered(m, Memory, vectors=2)
    for n in sorted(set(ids)):
        server.send((n, e))
    for n in (65535, ids[-2], ids[len(ids) // 2], ids[1], 0):  # KVM knows the first 1024
        wait_until(m, lambda n=n: not guest.ring(n, 0) and readable(e, 0.01), f"the bell of {n}", 30)
        os.eventfd_read(e)
    for n in range(65536):
        server.send(n)
    server.send((9, last))
    wait_until(m, lambda: not guest.ring(9, 0) and readable(last, 0.01), "the last message's effect", 30)
    guest.ring(65535, 0)
    check(not readable(e, 0), "one that has left was rung")
    guest.end()


@case("ivshmem: hostile server, no vectors of ours")
def _(m):
    Hostile(m, 0, 3, (-1, memfd(64 * K)))
    doorbell(m, "test=ring count=0").expect(0, err="^$")


@case("ivshmem: hostile server, memory of an odd size")
def _(m):
    e = eventfd()
    Hostile(m, 0, 0, (-1, memfd(5 * 4 * K + 100)), (0, e))
    doorbell(m, f"test=self id=0 size={5 * 4 * K} bar={32 * K}", vectors=1).expect(0, err="^$")


@case("ivshmem: hostile server, 700 peers and few descriptors")
def _(m):
    own, shared, e, last = [eventfd() for _ in range(2)], memfd(64 * K), eventfd(), eventfd()
    server = Hostile(m, 0, 3, (-1, shared), *((3, fd) for fd in own))

    class Memory:
        memory = mmap.mmap(shared, 64 * K)
    guest = Ordered(m, Memory, vectors=2, keys=",ioeventfd=off", files=1100)
    for n in range(700):
        server.send((10000 + n, e))
    server.send((9, last))  # no room
    server.send(10000)
    server.send((8, last))
    wait_until(m, lambda: not guest.ring(8, 0) and readable(last, 0.01), "the bell of the last")
    os.eventfd_read(last)
    guest.ring(9, 0)
    guest.ring(10699, 0)
    check(not readable(last, 0) and not readable(e, 0), "the bell of one that there was no room for")
    check(descriptors(guest.process) < 1100, "as many as may be")
    guest.end(err="^[^\\n]*too many peers for the limit of open files: some cannot be rung\n$")


@case("ivshmem: a peer whose eventfds make a writer wait")
def _(m):
    own = [eventfd() for _ in range(2)]
    stuck, good = os.eventfd(0, os.EFD_CLOEXEC), eventfd()
    os.eventfd_write(stuck, 2 ** 64 - 2)  # full, and not O_NONBLOCK
    fd = memfd(64 * K)
    Hostile(m, 0, 3, (-1, fd), (8, stuck), (9, good), *((3, x) for x in own))

    class Memory:
        memory = mmap.mmap(fd, 64 * K)
    guest = Ordered(m, Memory, vectors=2, keys=",ioeventfd=off")
    for _ in range(20):
        guest.ring(8, 0)
    for _ in range(3):
        guest.ring(9, 0)
        check(readable(good, 5 * m.slack), "another peer's bell waits with it")
        os.eventfd_read(good)
    guest.end()


# The server and its clients

def misuse(m, text, *arguments):
    one_line(m.finish(m.start([m.vmm, "ivshmem-server", *arguments])).expect(1, err=text))


@case("ivshmem-server: options, names and sockets that cannot be")
def _(m):
    path = m.path("socket")
    misuse(m, "--socket: is missing")
    misuse(m, "either this or --memfd", "--socket", path, "--size", "4K")
    misuse(m, "either this or --memfd", "--socket", path, "--size", "4K", "--memfd", "--shm", "x")
    misuse(m, "--size: is missing", "--socket", path, "--memfd")
    for size in ("5K", "0", "1K", "x", "64E"):
        misuse(m, "--size: must be a power", "--socket", path, "--memfd", "--size", size)
    for n in ("0", "1025", "-1", "x", "1x"):
        misuse(m, "--vectors: must be", "--socket", path, "--memfd", "--size", "4K", "--vectors", n)
    misuse(m, "--max-peers: must be", "--socket", path, "--memfd", "--size", "4K", "--max-peers", "65537")
    misuse(m, "unrecognized option", "--colour")
    misuse(m, "--x: no such option", "x")
    misuse(m, "/nowhere/x: No such file", "--socket", "/nowhere/x", "--memfd", "--size", "4K")
    misuse(m, "--shm: ", "--socket", path, "--shm", "a/b/c", "--size", "4K")
    m.finish(m.start([m.vmm, "ivshmem-server", "--help"])).expect(0, out="--max-peers")
    server = start_server(m)
    misuse(m, "socket: Address already in use", "--socket", path, "--memfd", "--size", "4K")
    server.kill()
    server.wait()
    left = os.stat(path).st_ctime_ns
    server = start_server(m)  # what a server that was killed has left is replaced
    wait_until(m, lambda: os.path.exists(path) and os.stat(path).st_ctime_ns != left, "a socket of its own")
    Peer(m).close()
    stop_server(m, server)


@case("ivshmem-server: shared memory with a name")
def _(m):
    name = f"vmm-test-{os.getpid()}"
    path = f"/dev/shm/{name}"
    server = start_server(m, backing=("--shm", name))
    try:
        peer = Peer(m)
        peer.memory[0:4] = b"vmm!"
        with open(path, "rb") as f:
            check(f.read(4) == b"vmm!" and os.fstat(f.fileno()).st_size == 64 * K, "another memory")
        peer.close()
        stop_server(m, server)
        check(not os.path.exists(path), f"{path} is left")
        with open(path, "wb") as f:
            f.truncate(8 * K)
        misuse(m, "has another size, 8192 bytes", "--socket", m.path("socket"), "--shm", name, "--size", "4K")
        stop_server(m, start_server(m, backing=("--shm", name), size="8K"))
        check(os.path.exists(path), "what was there before was removed")
    finally:
        if os.path.exists(path):
            os.unlink(path)


@case("ivshmem-server: ids, order, and --max-peers")
def _(m):
    server = start_server(m, "--max-peers", 3, vectors=2)
    peers = [Peer(m) for _ in range(3)]
    check([p.id for p in peers] == [0, 1, 2], str([p.id for p in peers]))
    for p in peers:
        p.listen(lambda p=p: len(p.own) == 2 and sorted(p.peers) == [i for i in range(3) if i != p.id] and
                 all(len(fds) == 2 for fds in p.peers.values()))
    turned_away = socket.socket(socket.AF_UNIX)
    turned_away.connect(m.path("socket"))
    check(turned_away.recv(8) == b"", "a fourth was let in")
    os.eventfd_write(peers[0].peers[2][1], 3)
    check(os.eventfd_read(peers[2].own[1]) == 3 and not readable(peers[2].own[0], 0), "another eventfd")
    peers[1].memory[100] = 42
    check(peers[2].memory[100] == 42, "another memory")
    peers[1].close()
    peers[0].listen(lambda: 1 not in peers[0].peers)
    peers[1] = Peer(m)
    check(peers[1].id == 3, f"id {peers[1].id} was given back a moment ago")
    for p in peers:
        p.close()
    stop_server(m, server, err="^vmm: ivshmem-server: turned a client away: --max-peers are here already\n$")


@case("ivshmem-server: clients that never read, talk, or vanish")
def _(m):
    server = start_server(m)
    good = Peer(m)
    good.listen(lambda: len(good.own) == 4)
    silent = []
    for _ in range(30):  # never read a byte, while others come and go
        s = socket.socket(socket.AF_UNIX)
        s.connect(m.path("socket"))
        silent.append(s)
    for i in range(200):
        s = socket.socket(socket.AF_UNIX)
        s.connect(m.path("socket"))
        if i % 3 == 0:
            s.send(os.urandom(200))
        elif i % 3 == 1:
            s.recv(i % 20 + 1)
        if i % 7 == 0:
            s.shutdown(socket.SHUT_RD)
        s.close()
    good.listen(lambda: len(good.peers) == 30 and all(len(v) == 4 for v in good.peers.values()), 20)
    doorbell(m, "test=ring count=20").expect(0, err="^$")
    for s in silent:
        s.close()
    good.listen(lambda: not good.peers, 20)
    later = Peer(m)
    later.listen(lambda: len(later.own) == 4 and list(later.peers) == [0])
    later.close()
    good.close()
    server.send_signal(signal.SIGTERM)
    r = m.finish(server).expect(0)
    check(all("is dropped: it sent something" in line for line in r.err.splitlines()), str(r))


@case("ivshmem-server: a thousand come and go beside one that never reads, and nothing is left")
def _(m):
    server = start_server(m, vectors=2)
    good, silent = Peer(m), socket.socket(socket.AF_UNIX)
    silent.connect(m.path("socket"))
    good.listen(lambda: len(good.own) == 2 and len(good.peers.get(1, ())) == 2)
    before, memory = descriptors(server), resident(server)
    for _ in range(20):
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(50)]
        for s in crowd:
            s.connect(m.path("socket"))
        for s in crowd:
            s.close()
    last = Peer(m)
    check(last.id == 1002, f"id {last.id}")
    last.listen(lambda: len(last.own) == 2)
    last.close()
    good.listen(lambda: list(good.peers) == [1] and not readable(good.socket, 0.1), 30)
    # What is being said to the silent one, if anything, keeps a peer's two vectors.
    check(descriptors(server) <= before + 2, f"{descriptors(server)} descriptors, {before} before")
    check(resident(server) < memory + 2 * M * m.slack, f"{resident(server)} bytes, {memory} before")
    silent.close()
    good.listen(lambda: not good.peers)
    wait_until(m, lambda: descriptors(server) == before - 3, f"{before - 3} descriptors")
    good.close()
    stop_server(m, server)


@case("ivshmem-server: out of descriptors")
def _(m):
    server = m.start([m.vmm, "ivshmem-server", "--socket", m.path("socket"), "--memfd", "--size", "4K", "--vectors",
                      "8"], preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    wait_until(m, lambda: os.path.exists(m.path("socket")), "a socket")
    good = Peer(m)
    crowd = []
    for _ in range(40):
        s = socket.socket(socket.AF_UNIX)
        s.connect(m.path("socket"))
        crowd.append(s)
    time.sleep(0.2)
    for s in crowd:
        s.close()
    good.listen(lambda: len(good.own) == 8 and not good.peers, 20)
    later = Peer(m)
    later.listen(lambda: len(later.own) == 8)
    later.close()
    good.close()
    stop_server(m, server, err="turned a client away: Too many open files|accept: Too many open files")


@case("ivshmem: the server ends, and the peers go on")
def _(m):
    server = start_server(m)
    peer = Peer(m)
    peer.listen(lambda: len(peer.own) == 4)
    guest = Ordered(m, peer)
    peer.listen(lambda: len(peer.peers.get(guest.id, ())) == 4)
    ring_and_wait(m, guest, peer)
    stop_server(m, server)
    ring_and_wait(m, guest, peer)
    os.eventfd_write(peer.peers[guest.id][0], 1)
    wait_until(m, lambda: guest.word(12) == 1, "an interrupt")
    guest.end(err="the server is gone; no peer will join or leave any more\n$")
    peer.close()


# QEMU

def qemu(m, text, device):
    program = shutil.which("qemu-system-x86_64")
    if not program:
        raise Skip("qemu-system-x86_64 is not installed")
    return m.start([program, "-accel", "tcg", "-machine", "q35", "-m", "128", "-display", "none", "-nodefaults",
                    "-no-reboot", "-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=1", *device,
                    "-kernel", m.guest("ivshmem"), "-append", text])


QEMU_GOOD = 1  # isa-debug-exit makes 2 n + 1 of what the guest writes


def qemu_doorbell(m, text, vectors=2):
    return qemu(m, f"{text} vectors={vectors}", ["-chardev", f"socket,path={m.path('socket')},id=c", "-device",
                                                 f"ivshmem-doorbell,chardev=c,vectors={vectors}"])


for roles in ((1, 0), (0, 1)):
    def qemu_case(roles):
        ours, theirs = ("sender", "receiver") if roles == (0, 1) else ("receiver", "sender")

        @case(f"ivshmem: QEMU's ivshmem-doorbell on our server, {theirs}, and our guest, {ours}")
        def run(m):
            server = start_server(m, vectors=2)
            other = qemu_doorbell(m, f"test=messages role={roles[1]} count=100000")
            guest = start_doorbell(m, f"test=messages role={roles[0]} count=100000", vectors=2)
            m.finish(guest, 120).expect(0)
            r = m.finish(other, 120).expect(QEMU_GOOD)
            check("FAIL" not in r.out, str(r))
            stop_server(m, server)
    qemu_case(roles)


@case("ivshmem: two of QEMU's ivshmem-doorbell on our server")
def _(m):
    server = start_server(m, vectors=2)
    guests = [qemu_doorbell(m, f"test=messages role={i} count=50000") for i in (0, 1)]
    for g in guests:
        m.finish(g, 120).expect(QEMU_GOOD)
    stop_server(m, server)


@case("ivshmem: QEMU's ivshmem-plain and ours with one file")
def _(m):
    path = m.file("shm", bytes(8) + struct.pack("<Q", 1234) + bytes(64 * K - 16))
    r = m.finish(qemu(m, "test=readonly expect=1234", [
        "-object", f"memory-backend-file,id=f,share=on,mem-path={path},size=64K", "-device",
        "ivshmem-plain,memdev=f"]), 60)
    check("got 0x1," in r.out, str(r))  # it is writable there
    m.run("ivshmem", "--ivshmem", f"path={path},size=64K", "--cmdline", "test=plain expect=1").expect(0)
