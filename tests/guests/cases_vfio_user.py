# SPDX-License-Identifier: MIT
"""vfio-user: the device of tests/servers/vfio-user.c, driven by a guest; and servers that do what they should not."""

import os
import random
import signal
import socket
import subprocess
import time

from cases_console import Terminal
from cases_control import Client
from harness import case, check

MEMORY = ("--memory", "64M")
ID, COMMAND, SIZE, FLAGS, BODY = 0, 2, 4, 8, 16  # offsets in messages
FOREVER = ",timeout=600000"  # longer than any case may take: where nothing is to time out, nothing can


def server(m, *arguments, name="server"):
    program = os.path.join(os.path.dirname(m.guests), "servers", "vfio-user-server")
    process = m.start([program, m.path(name), *arguments])
    m.wait_for(process, b"ready\n")
    return process


def device(m, name="server", options=""):
    timeout = "" if "timeout=" in options else FOREVER
    return ("--vfio-user", f"socket={m.path(name)}{options}{timeout}")


def good(name, test, *arguments, options="", guest="", timeout=60, out="passed\n$", err=None, more=()):
    @case(f"vfio-user: {name}")
    def run(m):
        server(m, *arguments)
        r = m.run("vfio_user", *MEMORY, *device(m, options=options), *more, "--cmdline", f"test={test} {guest}",
                  timeout=timeout)
        r.expect(0, out=out, err=err)
        check(len(r.err.splitlines()) <= 4, f"too many lines on stderr\n{r}")


good("configuration space, ROM, registers, mapped memory", "all")
good("the same on one socket", "all", "twin=off", guest="posted=0")
good("the same without posted writes", "all", options=",posted=off", guest="posted=0")
good("the same without mapped memory", "all", "mmap=off", guest="mapped=0")
good("messages in pieces", "all", "split=3")
good("memory that is not shared, registers", "all", options=",secure-dma=on")
for _name, _arguments in (("twin socket", ()), ("one socket", ("twin=off",))):
    good(f"DMA, memory shared, {_name}", "dma", *_arguments)
    good(f"DMA by messages, {_name}", "dma", *_arguments, options=",secure-dma=on")
    good(f"interrupts, {_name}", "irqs", *_arguments, err="reports an error")
    # It asks for memory before it answers anything.
    for _command in range(2, 11):
        good(f"asks before it answers command {_command}, {_name}", "registers", f"dma={_command}:4096", *_arguments,
             guest="posted=0" if _name == "one socket" else "")
good("interrupts without MSI", "irqs", "msi=off")
for _fds in (0, 40, 48):
    good(f"doorbells, {_fds}", "doorbells", f"iofds={_fds}", guest=f"iofds={_fds}")
good("beside hugetlbfs or not: shared memory by option", "dma", more=("--memory", "64M,shared=on"))
good("VMBus beside it", "registers", more=("--vmbus",))
good("reset", "reset")
good("reset of a device that cannot be reset", "reset-without", "reset=off")
good("a reply that is late", "slow", options=",timeout=2000", err="no reply in time")
good("another vCPU does not wait", "mute", more=("--cpus", "2"), out=r"other vCPU: done\npassed")
good("another vCPU does not wait, one socket", "mute", "twin=off", more=("--cpus", "2"),
     out=r"other vCPU: done\npassed")
good("many accesses", "hot", guest="count=3000", timeout=100)
good("many posted writes, a slow server", "hot", "multi=on", "delay=1", guest="count=3000 writes", timeout=100,
     out=r"multis [1-9]\d*\npassed")
good("many posted writes, a slow server that takes them one by one", "hot", "delay=1", guest="count=3000 writes",
     timeout=100, out="multis 0\npassed")


@case("vfio-user: a million accesses")
def _(m):
    # As many of them as fit into the time.
    limit = "" if os.environ.get("VMM_TEST_LONG") else "ms=5000"
    server(m)
    r = m.run("vfio_user", *MEMORY, *device(m), "--cmdline", f"test=hot count=1000000 {limit}", timeout=600)
    r.expect(0, out="passed\n$")


@case("vfio-user: a mapped file that shrinks")
def _(m):
    server(m, "shrink=10@20")
    r = m.run("vfio_user", *MEMORY, *device(m), "--cmdline", "test=shrunk")
    r.expect(0, out="passed\n$")


@case("vfio-user: several devices")
def _(m):
    server(m, name="one")
    server(m, name="two")
    m.run("vfio_user", *MEMORY, *device(m, "two"), *device(m, "one"), "--cmdline", "test=all").expect(0, out="passed")


@case("vfio-user: several vCPUs wait in vain for each of two devices")
def _(m):
    server(m, name="one")
    server(m, name="two")
    r = m.run("vfio_user", *MEMORY, "--cpus", "5", *device(m, "one", ",timeout=1000"), *device(m, "two", ",timeout=1500"),
              "--cmdline", "test=timeouts", timeout=60)
    r.expect(0, out="passed\n$", err="one: no reply in time").expect(0, err="two: no reply in time")


@case("vfio-user: trace")
def _(m):
    server(m)
    r = m.run("vfio_user", *MEMORY, *device(m), "--trace", "vfio_user_*", "--cmdline", "test=registers")
    r.expect(0, out="passed", err=r"vfio_user_send fd \d+ id \d+ command 1 .*vfio_user_recv fd \d+ id \d+ command 9 ")


# Killed at random, while the guest is at work.
for _seed in range(6):
    @case(f"vfio-user: the server is killed, {_seed}")
    def _(m, seed=_seed):
        process = server(m, "twin=off" if seed % 2 else "twin=on")
        guest = m.start(m.command("vfio_user", *MEMORY, *device(m), "--cmdline", "test=death"))
        m.wait_for(guest, b"alive\n")
        time.sleep(random.Random(seed).random() / 5)
        process.kill()
        r = m.finish(guest).expect(0, out="gone\npassed", err="the guest has lost the device")
        check(len(r.err.splitlines()) == 1, str(r))


@case("vfio-user: the server is killed again and again, and comes back")
def _(m):
    for number in range(3):
        process = server(m)
        guest = m.start(m.command("vfio_user", *MEMORY, *device(m, options=",reconnect=on"), "--cmdline",
                                  "test=death back"))
        m.wait_for(guest, b"alive\n")
        time.sleep(0.05 * number)
        process.kill()
        process.wait()
        m.wait_for(guest, b"gone\n")
        process = server(m)
        m.finish(guest, 60).expect(0, out="back\npassed", err="the server is back")
        process.kill()
        process.wait()


@case("vfio-user: a server with 256 vectors, which takes them one by one, comes back")
def _(m):
    options = ("vectors=256", 'json={"capabilities":{"max_msg_fds":1}}')
    process = server(m, *options)
    # The table fills pages that the guest's test of mapped memory writes to.
    guest = m.start(m.command("vfio_user", *MEMORY, *device(m, options=",reconnect=on"), "--cmdline",
                              "test=death back mapped=0"))
    m.wait_for(guest, b"alive\n")
    process.kill()
    process.wait()
    m.wait_for(guest, b"gone\n")
    server(m, *options)
    m.finish(guest, 60).expect(0, out="back\npassed", err="the server is back")


@case("vfio-user: what comes back is another device")
def _(m):
    process = server(m)
    # Its lines on one pipe, to be waited for.
    guest = m.start(m.command("vfio_user", *MEMORY, *device(m, options=",reconnect=on"), "--cmdline",
                              "test=death back"), stderr=subprocess.STDOUT)
    m.wait_for(guest, b"alive\n")
    process.kill()
    process.wait()
    server(m, "iofds=0")
    m.wait_for(guest, b"doorbells of the device that is back are others\n", 60)
    terminate(guest)
    m.finish(guest)


@case("vfio-user: no descriptor is left behind by a server that comes back again and again")
def _(m):
    def count():
        counts.append(len(os.listdir(f"/proc/{guest.pid}/fd")))

    # Between the good ones, those that are refused at some step, again and again, or send too many.
    counts = []
    process = server(m)
    guest = m.start(m.command("vfio_user", *MEMORY, *device(m, options=",reconnect=on"), "--cmdline",
                              "test=returns"), stderr=subprocess.STDOUT)
    m.wait_for(guest, b"there\n", 60)
    for trick in ("cut=1:18", "fds=2:5", f"patch=5:{BODY + 8}:4:3", "cut=6:24", f"patch=13:{FLAGS}:8:0x500000021",
                  f"patch=8:{FLAGS}:8:0x1600000021", f"patch=9:{FLAGS}:8:0x500000021"):
        count()
        process.kill()
        process.wait()
        m.wait_for(guest, b"away\n", 60)
        process = server(m, trick)
        if trick.startswith("fds"):
            m.wait_for(guest, b"there\n", 60)
            process.kill()
            process.wait()
            m.wait_for(guest, b"away\n", 60)
        else:
            m.wait_for(process, b"client 4\n", 60)
            process.kill()
            process.wait()
        process = server(m)
        m.wait_for(guest, b"there\n", 60)
    count()
    check(len(set(counts)) == 1, f"descriptors while the server is there: {counts}")
    terminate(guest)
    m.finish(guest)


def ends(m, process, how):
    """It ends at all, though it may wait for ten minutes (FOREVER). That it takes less than a second is in the docs: how
    long the host takes to schedule anybody is another matter."""
    how(process)
    err = m.finish(process, 60).err
    check("leaving it behind" not in err, err)
    return err


def terminate(process):
    # The first asks the guest to end, which does not listen. Two may count as one that has not been read yet.
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)


def waits_for_reply(m, says, peer, _):
    says("waiting")
    m.wait_for(peer, b"stalled 0\n")


def is_flooded(m, says, peer, _):
    says("alive")
    m.wait_for(peer, b"flood 9\n", 60)


def has_lost_it(_m, says, peer, _):
    says("alive")
    peer.kill()
    peer.wait()
    says("gone")


def has_mute_one(m, says, peer, command):
    has_lost_it(m, says, peer, command)
    m.wait_for(server(m, f"mute={command}"), f"mute {command}\n".encode())


# Peers while the guest runs: what the guest does, the server's tricks, and how to see that it has come to that.
STATES = [
    ("idle", "idle", (), lambda m, says, *_: says("idle"), 0),
    ("a vCPU waits for a reply", "hang", (), waits_for_reply, 0),
    ("a vCPU waits for a reply, one socket", "hang", ("twin=off",), waits_for_reply, 0),
    ("the server asks for memory, and takes no answer", "death", ("flood=9@30",), is_flooded, 0),
    ("the server asks for memory, and takes no answer, one socket", "death", ("twin=off", "flood=9@30"), is_flooded, 0),
    ("the server is gone", "death back", (), has_lost_it, 0),
    *((f"the server is back, and mute from command {n} on", "death back", (), has_mute_one, n) for n in (1, 2, 5, 8, 9)),
]

for _state in STATES:
    @case(f"vfio-user: SIGTERM, {_state[0]}")
    def _(m, state=_state):
        _, test, arguments, reached, number = state
        peer = server(m, *arguments)
        guest = m.start(m.command("vfio_user", *MEMORY, *device(m, options=",reconnect=on"), "--cmdline",
                                  f"test={test}"))
        reached(m, lambda text: m.wait_for(guest, text.encode() + b"\n"), peer, number)
        ends(m, guest, terminate)

    @case(f"vfio-user: Ctrl-A x, {_state[0]}")
    def _(m, state=_state):
        _, test, arguments, reached, number = state
        peer = server(m, *arguments)
        t = Terminal(m, "vfio_user", *MEMORY, *device(m, options=",reconnect=on"), "--cmdline", f"test={test}")
        reached(m, lambda text: t.wait_for(text.encode()), peer, number)
        t.send(b"\x01x")
        t.finish(0)
        check(b"leaving it behind" not in t.seen, repr(t.seen))


@case("vfio-user: Ctrl-C, the server does not reply at the start")
def _(m):
    # The terminal is not raw yet: the guest does not run.
    peer = server(m, "mute=1")
    t = Terminal(m, "vfio_user", *MEMORY, *device(m), "--cmdline", "test=idle")
    m.wait_for(peer, b"mute 1\n")
    t.process.send_signal(signal.SIGINT)  # what the terminal sends to its foreground process
    t.finish(1)
    check(b"given up" in t.seen, repr(t.seen))


@case("vfio-user: SIGTERM, the server's queue of connections is full")
def _(m):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(m.path("server"))
        listener.listen(0)
        others = []
        while True:
            s = socket.socket(socket.AF_UNIX)
            s.setblocking(False)
            others.append(s)
            if s.connect_ex(m.path("server")):
                break
        guest = m.start(m.command("vfio_user", *MEMORY, *device(m), "--trace", "vfio_user_event", "--cmdline",
                                  "test=idle"), stderr=subprocess.STDOUT)
        m.wait_for(guest, b"queue of connections is full\n")
        guest.send_signal(signal.SIGTERM)
        m.finish(guest, 60).expect(1, out="connect: Interrupted system call")
        for s in others:
            s.close()


@case("vfio-user: pauses while the server asks for memory")
def _(m):
    # The loop waits for the vCPU, the vCPU for the server, and the server for what the loop answers otherwise.
    server(m)
    guest = m.start(m.command("vfio_user", *MEMORY, *device(m, options=",secure-dma=on"), "--control",
                              "control", "--cmdline", "test=dma-loop count=150"))
    m.wait_for(guest, b"ready\n")
    client = Client(m)
    for _ in range(20):
        client.do("pause")
        client.do("resume")
    r = m.finish(guest, 60).expect(0, out="passed\n$")
    check(not r.err, str(r))


for _command in (1, 2, 4, 5, 6, 7, 8, 9, 13):
    @case(f"vfio-user: SIGTERM, the server does not reply to command {_command} at the start")
    def _(m, command=_command):
        peer = server(m, f"mute={command}")
        guest = m.start(m.command("vfio_user", *MEMORY, *device(m), "--cmdline", "test=idle"))
        m.wait_for(peer, f"mute {command}\n".encode())
        err = ends(m, guest, lambda p: p.send_signal(signal.SIGTERM))
        check(guest.returncode == 1 and ("given up\n" if command != 8 else "descriptors") in err, err)

    @case(f"vfio-user: the server does not reply to command {_command} at the start")
    def _(m, command=_command):
        server(m, f"mute={command}")
        r = m.run("vfio_user", *MEMORY, *device(m, options=",timeout=200"), "--cmdline", "test=idle")
        r.expect(1, err="does not reply|does not take|in time")

    @case(f"vfio-user: the server hangs up on command {_command} at the start")
    def _(m, command=_command):
        server(m, f"close={command}")
        r = m.run("vfio_user", *MEMORY, *device(m), "--cmdline", "test=idle")
        r.expect(1, err="went away|closed")


# What a server may get wrong before the guest runs: arguments, and what vmm says then.
JSON = "json={{\"capabilities\":{{{}}}}}"
CONFIG_PART = BODY + 16


def config(reg, size, value):
    return f"patch=9@1:{CONFIG_PART + reg}:{size}:{value}"


REFUSED = [
    ("VERSION: too short", "cut=1:18", "too short"),
    ("VERSION: minor", f"patch=1:{BODY + 2}:2:9", "another version"),
    ("VERSION: major", f"patch=1:{BODY}:2:1", "another version"),
    ("VERSION: no NUL", "cut=1:60", "no end"),
    ("VERSION: no JSON", "json={{{{", "no JSON"),
    ("VERSION: no object", "json=[1,2]", "no JSON object"),
    ("VERSION: no object inside", "json={\"capabilities\":7}", "no JSON object"),
    ("VERSION: JSON without end", "json=" + "[" * 10000, "no JSON"),
    ("VERSION: max_msg_fds 0", JSON.format('"max_msg_fds":0'), "max_msg_fds"),
    ("VERSION: max_msg_fds negative", JSON.format('"max_msg_fds":-1'), "max_msg_fds"),
    ("VERSION: max_msg_fds 2^64", JSON.format('"max_msg_fds":18446744073709551616'), "no JSON"),
    ("VERSION: max_msg_fds float", JSON.format('"max_msg_fds":1.5'), "max_msg_fds"),
    ("VERSION: max_data_xfer_size 1", JSON.format('"max_data_xfer_size":1'), "max_data_xfer_size"),
    ("VERSION: max_dma_maps 0", JSON.format('"max_dma_maps":0'), "max_dma_maps"),
    ("VERSION: pgsizes 0", JSON.format('"pgsizes":0'), "pgsizes"),
    ("VERSION: pgsizes 1 GiB", JSON.format('"pgsizes":1073741824'), "pgsizes"),
    ("VERSION: write_multiple", JSON.format('"write_multiple":"yes"'), "write_multiple"),
    ("VERSION: twin_socket no object", JSON.format('"twin_socket":1'), "twin_socket"),
    ("VERSION: twin_socket index", JSON.format('"twin_socket":{"supported":true,"fd_index":9}'), "twin_socket"),
    ("VERSION: twin_socket without index", JSON.format('"twin_socket":{"supported":true}'), "twin_socket"),
    ("VERSION: id", f"patch=1:{ID}:2:77", "id or command"),
    ("VERSION: command", f"patch=1:{COMMAND}:2:4", "id or command"),
    ("VERSION: size 8", f"patch=1:{SIZE}:4:8", "shorter than its header"),
    ("VERSION: size 4 GiB", f"patch=1:{SIZE}:4:0xffffffff", "longer than any"),
    ("VERSION: size 2 MiB", f"patch=1:{SIZE}:4:0x200000", "longer than any"),
    ("VERSION: size too large", f"patch=1:{SIZE}:4:0x10000", "does not reply"),
    ("VERSION: type command", f"patch=1:{FLAGS}:4:0", "does not reply"),
    ("VERSION: error", f"patch=1:{FLAGS}:8:0x1600000021", "Invalid argument"),
    ("VERSION: error 0", f"patch=1:{FLAGS}:8:0x21", "refused by the server"),
    ("VERSION: error -1", f"patch=1:{FLAGS}:8:0xffffffff00000021", "refused by the server"),
    ("DMA_MAP: error", f"patch=2:{FLAGS}:8:0x1100000021", "DMA_MAP: File exists"),
    ("DMA_MAP: id", f"patch=2:{ID}:2:77", "id or command"),
    ("GET_INFO: short", "cut=4:20", "too short"),
    ("GET_INFO: not PCI", f"patch=4:{BODY + 4}:4:1", "not a PCI device"),
    ("GET_INFO: regions 2^31", f"patch=4:{BODY + 8}:4:0x80000000", "number of regions"),
    ("GET_INFO: 7 regions", f"patch=4:{BODY + 8}:4:7", "number of regions"),
    ("GET_INFO: irqs 2^31", f"patch=4:{BODY + 12}:4:0x80000000", "interrupt indexes"),
    ("REGION_INFO: short", "cut=5@1:40", "too short"),
    ("REGION_INFO: index", f"patch=5@1:{BODY + 8}:4:3", "another region"),
    ("REGION_INFO: argsz 1 GiB", f"patch=5@1:{BODY}:4:0x40000000", "too long"),
    ("REGION_INFO: size 2^64 - 1", f"patch=5@1:{BODY + 16}:8:0xffffffffffffffff", "size"),
    ("REGION_INFO: offset wraps", f"patch=5@3:{BODY + 24}:8:0xfffffffffffff000", "size or its place"),
    ("REGION_INFO: capability at 8", f"patch=5@3:{BODY + 12}:4:8", "go in circles"),
    ("REGION_INFO: capability at 4 GiB", f"patch=5@3:{BODY + 12}:4:0xfffffff0", "leave the message"),
    ("REGION_INFO: capability beyond", f"patch=5@3:{BODY + 12}:4:76", "leave the message"),
    ("REGION_INFO: capabilities loop", f"patch=5@3:{BODY + 36}:4:32", "go in circles"),
    ("REGION_INFO: 2^28 areas", f"patch=5@3:{BODY + 40}:4:0x10000000", "more mappable areas"),
    ("REGION_INFO: area beyond", f"patch=5@3:{BODY + 48}:8:0x10000", "beyond its region"),
    ("REGION_INFO: area wraps", f"patch=5@3:{BODY + 48}:8:0xfffffffffffff000", "beyond its region"),
    ("REGION_INFO: area too long", f"patch=5@3:{BODY + 56}:8:0xfffffffffffff000", "beyond its region"),
    ("REGION_INFO: configuration space of 128 bytes", f"patch=5@8:{BODY + 16}:8:128", "too small"),
    ("IO_FDS: short", "cut=6@1:24", "too short"),
    ("IO_FDS: index", f"patch=6@1:{BODY + 8}:4:3", "another region"),
    ("IRQ_INFO: short", "cut=7@1:20", "too short"),
    ("IRQ_INFO: index", f"patch=7@1:{BODY + 8}:4:3", "another index"),
    ("RESET: error", f"patch=13:{FLAGS}:8:0x500000021", "DEVICE_RESET: Input/output error"),
    ("config: error", f"patch=9@1:{FLAGS}:8:0x500000021", "Input/output error"),
    ("config: short", "cut=9@1:100", "does not fit"),
    ("config: long", "extra=9@1:4", "does not fit"),
    ("config: count", f"patch=9@1:{BODY + 12}:4:0xffffffff", "does not fit"),
    ("config: header of a bridge", config(0x0e, 1, 1), "header of a device"),
    ("config: BAR of reserved type", config(0x10, 4, 2), "neither I/O"),
    ("config: 64-bit BAR over another", config(0x10, 4, 4), "upper half"),
    ("config: capabilities loop", config(0x41, 1, 0x40), "in circles"),
    ("config: capability in the header", config(0x34, 1, 0x10), "leave it"),
    ("config: MSI-X table in BAR 7", config(0x74, 4, 7), "table of MSI-X"),
    ("config: MSI-X table beyond", config(0x74, 4, 0xfff8 | 2), "table of MSI-X"),
    ("config: MSI-X pending bits in an I/O BAR", config(0x78, 4, 1), "table of MSI-X"),
    ("config: MSI-X table over its pending bits", config(0x78, 4, 0x9000 | 2), "MSI or MSI-X"),
    ("SET_IRQS: error", f"patch=8@1:{FLAGS}:8:0x1600000021", "does not take"),
]

for _name, _trick, _said in REFUSED:
    @case(f"vfio-user: refused: {_name}")
    def _(m, trick=_trick, said=_said):
        process = server(m, trick)
        options = ",timeout=300" if said == "does not reply" else ""
        r = m.run("vfio_user", *MEMORY, *device(m, options=options), "--cmdline", "test=all")
        r.expect(1, err=said)
        check(len(r.err.splitlines()) == 1, f"more than a line\n{r}")
        check(process.poll() is None, "the server died")

# What costs a feature at most: the guest's test passes with the rest.
ACCEPTED = [
    ("VERSION: no JSON", ["json="], "registers", ""),
    ("VERSION: long JSON", [JSON.format('"max_msg_fds":8,"x":"' + "y" * 30000 + '"')], "irqs", ""),
    ("VERSION: one descriptor at a time", [JSON.format('"max_msg_fds":1')], "irqs", ""),
    ("VERSION: too many descriptors", ["fds=1:40"], "registers", ""),
    ("VERSION: 8 bytes of data at a time", [JSON.format('"max_data_xfer_size":8')], "registers", ""),
    ("DMA_MAP: with descriptors", ["fds=2:3"], "all", ""),
    ("DMA_UNMAP: no body", ["cut=3:16"], "registers", ""),
    ("REGION_INFO: no descriptor", ["fds=5:0"], "all", "mapped=0"),
    ("REGION_INFO: three descriptors", ["fds=5:3"], "all", ""),
    ("REGION_INFO: an eventfd", ["mmap=on", "fds=5:0", "fds=5:1"], "all", "mapped=0"),
    ("REGION_INFO: file too small", [f"patch=5@3:{BODY + 24}:8:0x10000"], "all", "mapped=0"),
    ("REGION_INFO: place in the file is no page", [f"patch=5@3:{BODY + 24}:8:8"], "registers", ""),
    ("REGION_INFO: unaligned area", [f"patch=5@3:{BODY + 48}:8:0x1004"], "all", "mapped=0"),
    ("REGION_INFO: areas overlap", [f"patch=5@3:{BODY + 64}:8:0x2000", f"patch=5@3:{BODY + 72}:8:0x2000"],
     "registers", ""),
    ("REGION_INFO: empty area", [f"patch=5@3:{BODY + 56}:8:0"], "all", "mapped=0"),
    ("REGION_INFO: a BAR of 2^60 bytes", [f"patch=5@5:{BODY + 16}:8:{1 << 60}"], "registers", ""),
    ("IO_FDS: refused", [f"patch=6:{FLAGS}:8:0x1600000021", "iofds=0"], "doorbells", "iofds=0"),
    ("IO_FDS: offset beyond", [f"patch=6@4:{BODY + 16}:8:0x1000"], "registers", ""),
    ("IO_FDS: offset wraps", [f"patch=6@4:{BODY + 16}:8:0xfffffffffffffffe"], "registers", ""),
    ("IO_FDS: size 3", [f"patch=6@4:{BODY + 24}:8:3"], "registers", ""),
    ("IO_FDS: type 7", [f"patch=6@4:{BODY + 36}:4:7"], "registers", ""),
    ("IO_FDS: descriptor beyond", [f"patch=6@4:{BODY + 32}:4:9"], "registers", ""),
    ("IO_FDS: count", [f"patch=6@4:{BODY + 12}:4:0xffffffff"], "registers", ""),
    ("IO_FDS: count 0", [f"patch=6@4:{BODY + 12}:4:0"], "registers", ""),
    ("IO_FDS: argsz 0", [f"patch=6@4:{BODY}:4:0"], "registers", ""),
    ("IO_FDS: argsz 1 GiB", [f"patch=6@4:{BODY}:4:0x40000000"], "registers", ""),
    ("IO_FDS: shadow beyond its file", [f"patch=6@4:{BODY + 16 + 2 * 48 + 32}:8:0xffe"], "registers", ""),
    ("IO_FDS: shadow at 2^63", [f"patch=6@4:{BODY + 16 + 2 * 48 + 32}:8:0x8000000000000000"], "registers", ""),
    ("IO_FDS: no eventfd", [f"patch=6@4:{BODY + 32}:4:3"], "registers", ""),
    ("IO_FDS: no descriptors", ["fds=6:0"], "registers", ""),
    ("IRQ_INFO: 4 billion MSI-X vectors", [f"patch=7@3:{BODY + 12}:4:0xffffffff"], "irqs", ""),
    ("IRQ_INFO: 4 billion of INTx and MSI", [f"patch=7@1:{BODY + 12}:4:0xffffffff",
                                             f"patch=7@2:{BODY + 12}:4:0xffffffff"], "irqs", ""),
    ("config: MSI-X table of 2048 in a BAR that has not so many vectors", [config(0x72, 2, 0x7f)], "registers", ""),
    ("asks what nobody knows", ["ask=9@5:99:0:0", "ask=9@9:7:0:0"], "registers", ""),
    ("asks for memory that is not there", ["ask=9@5:11:0xffffffffffffff00:4096", "ask=9@6:11:0x80000000:4",
                                           "ask=9@7:11:0:0", "ask=9@8:11:0:0xffffffffffffffff",
                                           "ask=9@9:11:0:0x100001"], "registers", ""),
    ("reads and writes 2^48 bytes", ["ask=9@6:11:0x1000:0x1000000000000", "ask=9@7:12:0x1000:0x1000000000000"],
     "registers", ""),
    ("writes more than it sends", ["ask=9@6:12:0x1000:0x800000"], "registers", ""),
]

for _name, _tricks, _test, _guest in ACCEPTED:
    for _twin in ("twin=on", "twin=off"):
        @case(f"vfio-user: accepted: {_name}, {_twin}")
        def _(m, tricks=_tricks, test=_test, guest=_guest, twin=_twin):
            # Where the JSON is the test's, there is no twin socket in it.
            if any(t.startswith("json") for t in tricks):
                twin = "twin=off"
            server(m, twin, *tricks)
            r = m.run("vfio_user", *MEMORY, *device(m), "--cmdline",
                      f"test={test} {guest}{' posted=0' if twin == 'twin=off' else ''}", timeout=60)
            r.expect(0, out="passed\n$")
            check(len(r.err.splitlines()) <= 4, f"too many lines on stderr\n{r}")

# While the guest runs. Reads of the guest are command 9 from number 3 on.
LOST = [
    ("id", f"patch=9@20:{ID}:2:0xfff0", "nobody had asked"),
    ("command", f"patch=9@20:{COMMAND}:2:10", "with another one"),
    ("size 8", f"patch=9@20:{SIZE}:4:8", "shorter than its header"),
    ("size 4 GiB", f"patch=9@20:{SIZE}:4:0xffffffff", "longer than any"),
    ("a type that is none", f"patch=9@20:{FLAGS}:4:7", "neither command nor reply"),
    ("longer than asked", "extra=9@20:4", "longer than what was asked"),
    ("shorter than asked", "cut=9+12:34", "do not fit"),
    ("count", f"patch=9+12:{BODY + 12}:4:0xffffffff", "do not fit"),
    ("silence", "mute=9+12", "does not reply"),
    ("hangs up", "close=9@20", "went away|closed"),
]

for _name, _trick, _said in LOST:
    for _twin in ("twin=on", "twin=off"):
        @case(f"vfio-user: lost: {_name}, {_twin}")
        def _(m, trick=_trick, said=_said, twin=_twin):
            server(m, twin, trick)
            options = ",timeout=300" if said == "does not reply" else ""
            r = m.run("vfio_user", *MEMORY, *device(m, options=options), "--cmdline", "test=gone")
            r.expect(0, out="passed\n$", err=said)
            check(len(r.err.splitlines()) <= 5, f"too many lines on stderr\n{r}")

# What costs an access at most.
for _name, _trick, _bad in (
        ("a reply twice", "twice=9@20", 0),
        ("an error", f"patch=9@20:{FLAGS}:8:0x500000021", 1),
        ("error 0", f"patch=9@20:{FLAGS}:8:0x21", 1),
        ("error -1", f"patch=9@20:{FLAGS}:8:0xffffffff00000021", 1),
        ("descriptors", "fds=9:5", 0),
        ("too many descriptors", "fds=9@20:60", 0),
        ("a count that is too small", f"patch=9@20:{BODY + 12}:4:3", 1),
        ("silence once", "mute=9@20", 1)):
    @case(f"vfio-user: tolerated: {_name}")
    def _(m, trick=_trick, bad=_bad):
        server(m, trick)
        options = ",timeout=2000" if "mute" in trick else ""
        m.run("vfio_user", *MEMORY, *device(m, options=options), "--cmdline",
              f"test=tolerant bad={bad}").expect(0, out="passed")


@case("vfio-user: a server that replies to posted writes")
def _(m):
    # Two each, even: the second one is recognised as well.
    server(m, "twice=10")
    r = m.run("vfio_user", *MEMORY, *device(m), "--cmdline", "test=registers")
    r.expect(0, out="passed", err="replies to posted writes")
    check(len(r.err.splitlines()) == 1, str(r))


@case("vfio-user: nobody listens")
def _(m):
    m.run("vfio_user", *MEMORY, *device(m)).expect(1, err=r"--vfio-user .*: connect: No such file")
    m.file("file", b"")
    m.run("vfio_user", *MEMORY, *device(m, "file")).expect(1, err="connect: Connection refused")


@case("vfio-user: options")
def _(m):
    for text, said in (("", "is empty"), ("path=x", "'path=x' is none of socket=, timeout="), ("timeout=5", "socket=PATH is missing"),
                       ("socket=", "socket= takes 1 to 107 bytes"), ("socket=x,timeout=0", "timeout= takes a number from 1 to 600000"),
                       ("socket=x,timeout=9999999", "timeout= takes a number"), ("socket=x,secure-dma=maybe", "secure-dma= takes on or off"),
                       ("socket=" + "x" * 120, "107 bytes"), ("socket=x,socket=y", "socket= is given twice")):
        m.run("vfio_user", "--vfio-user", text).expect(1, err=said)
