# SPDX-License-Identifier: MIT
"""vhost-user: the devices of tests/servers/vhost-user.c, driven by guests; and back-ends that do what they should not."""

import os
import random
import re
import signal
import struct
import subprocess
import time

from harness import case, check

MEMORY = ("--memory", "64M")
RINGS = (("split", ""), ("packed", " packed=1"), ("split, event index", " event=1"),
         ("packed, event index", " packed=1 event=1"))
# Requests.
(GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE,
 SET_VRING_KICK, SET_VRING_CALL, GET_PROTOCOL, SET_PROTOCOL, GET_QUEUE_NUM, SET_VRING_ENABLE, SET_BACKEND_REQ_FD,
 GET_CONFIG, SET_CONFIG, GET_INFLIGHT, SET_INFLIGHT, RESET_DEVICE, GET_SLOTS, ADD_MEM, REM_MEM, SET_STATUS, GET_STATUS,
 GET_SHMEM) = (1, 2, 3, 5, 8, 9, 10, 11, 12, 13, 15, 16, 17, 18, 21, 24, 25, 31, 32, 34, 36, 37, 38, 39, 40, 44)
# A reply: offsets from its header's start.
REQUEST, FLAGS, SIZE, BODY = 0, 4, 8, 12


def server(m, *arguments, name="server"):
    program = os.path.join(os.path.dirname(m.guests), "servers", "vhost-user-server")
    process = m.start([program, m.path(name), *arguments])
    m.wait_for(process, b"ready\n")
    return process


def device(m, name="server", options="", kind="60"):
    # Long, where it is not what is tested: a machine may have other work.
    options += "" if "timeout=" in options else ",timeout=60000"
    return ("--vhost-user", f"socket={m.path(name)},device={kind}{options}")


def late(m):
    """The option for a back-end that does not answer: it is met by what does answer, also on a slow machine."""
    return f",timeout={int(250 * m.slack)}"


def said_by(process):
    """What a server has found wrong with the front-end, once it has ended."""
    process.kill()
    return process.communicate()[0].decode()


def good(name, guest, test, *arguments, options="", cmdline="", timeout=60, out="passed\n$", err=None, more=(),
         lines=4):
    @case(f"vhost-user: {name}")
    def run(m):
        process = server(m, *arguments)
        r = m.run(guest, *MEMORY, *device(m, options=options), *more, "--cmdline", f"test={test}{cmdline}",
                  timeout=timeout)
        r.expect(0, out=out, err=err)
        check(len(r.err.splitlines()) <= lines, f"too many lines on stderr\n{r}")
        faults = said_by(process)
        check("fault" not in faults, f"the back-end says: {faults}")


# -- the transport

good("capabilities, features, registers, configuration", "vhost_user", "all")
good("the same by messages for kicks and calls", "vhost_user", "all", "with-protocol=14", options=",inband=on")
for _ring, _cmdline in RINGS:
    good(f"rings, {_ring}", "vhost_user", "rings", cmdline=_cmdline)
    good(f"queue reset, {_ring}", "vhost_user", "queue-reset", cmdline=_cmdline)
    good(f"device reset, {_ring}", "vhost_user", "device-reset", cmdline=_cmdline)
good("rings by messages for kicks and calls", "vhost_user", "rings", "with-protocol=14", options=",inband=on")
good("interrupts by messages", "vhost_user", "msix", "with-protocol=14", options=",inband=on")
good("MSI-X", "vhost_user", "msix")
for _name, _arguments, _options in (("", (), ""), (", without acknowledgements", ("without-protocol=3",), ""),
                                    (", interrupts by messages", ("with-protocol=14",), ",inband=on")):
    good(f"MSI-X switched off and on, and masked, while queues run{_name}", "vhost_user", "msix-toggled", *_arguments,
         options=_options)
good("INTx", "vhost_user", "intx")
good("reset of the machine", "vhost_user", "machine-reset")
good("guest memory", "vhost_user", "memory")
good("guest memory above 4 GiB", "vhost_user", "memory", cmdline=" high=1", more=("--memory", "3G"))
good("small queues", "vhost_user", "traffic", cmdline=" size=16", options=",queue-size=64")
good("messages in pieces", "vhost_user", "traffic", "split=3")
good("a slow back-end", "vhost_user", "traffic", "delay=10")
good("VMBus beside it", "vhost_user", "traffic", more=("--vmbus",))
for _bit in (0, 3, 5, 9, 10, 12, 13, 15, 16, 22):
    # Some of them need others; without queues' number there is one, which this guest is not content with.
    if _bit not in (0, 9):
        good(f"without protocol feature {_bit}", "vhost_user", "device-reset", f"without-protocol={_bit}")
good("without any protocol feature but these two", "vhost_user", "traffic",
     *(f"without-protocol={bit}" for bit in (3, 5, 10, 12, 13, 15, 16, 22)))
good("errors that a back-end reports, and used entries of its own", "vhost_user", "errors")


@case("vhost-user: several devices")
def _(m):
    server(m, "queues=2", name="one")
    server(m, name="two")
    server(m, "block=on", name="disk")
    r = m.run("vhost_user", *MEMORY, *device(m, "disk", kind="blk"), *device(m, "two"), "--cmdline", "test=all")
    r.expect(0, out="passed\n$")


# -- shared memory

SHM = "shmem=0x8000"
good("shared memory: one region", "vhost_user_shm", "regions", SHM, cmdline=" ids=0 pages=8")
good("shared memory: regions of 3, 1 and 513 pages", "vhost_user_shm", "regions", "shmem=0,0x3000,0x1000,0,0x201000",
     cmdline=" ids=1,2,4 pages=3,1,513")
good("shared memory: region 255", "vhost_user_shm", "regions", "shmem=" + "0," * 255 + "0x5000",
     cmdline=" ids=255 pages=5")
good("shared memory: packed ring", "vhost_user_shm", "regions", SHM, cmdline=" ids=0 pages=8 packed=1")
good("shared memory: messages in pieces", "vhost_user_shm", "regions", SHM, "split=7", cmdline=" ids=0 pages=8")
good("shared memory: read only", "vhost_user_shm", "read-only", SHM)
good("shared memory: refused", "vhost_user_shm", "refused", SHM, lines=20)
good("shared memory: messages", "vhost_user_shm", "raw", SHM, lines=20)
good("shared memory: two CPUs read what comes and goes", "vhost_user_shm", "reading", SHM, more=("--cpus", "3"),
     timeout=120, out=r"reads \d+ \d+, of nothing \d+ \d+\npassed")
good("shared memory: more mappings than there may be", "vhost_user_shm", "flood", "shmem=0x2000000", lines=20,
     timeout=120)
good("shared memory: a reset ends it", "vhost_user_shm", "reset", SHM, lines=20)
good("shared memory: a file that shrinks", "vhost_user_shm", "truncated", SHM)
good("shared memory: before there is a driver", "vhost_user_shm", "early", SHM, "map=24@1:0:0x1000:0x1000")
good("shared memory: no place for buffers", "vhost_user_shm", "not-memory", SHM)
for _number in range(9):
    good(f"shared memory: a broken message, {_number}", "vhost_user_shm", "broken", SHM, lines=8,
         cmdline=f" broken={_number}")


def holdings(process, trace):
    """What a vmm holds that a mapping must not cost: its descriptors, and how often it has changed a memslot."""
    directory = f"/proc/{process.pid}/fd"
    fds = []
    for fd in os.listdir(directory):
        try:
            fds.append(f"{fd} {os.readlink(os.path.join(directory, fd))}")
        except FileNotFoundError:  # closed meanwhile
            fds.append(f"{fd} gone")
    with open(trace, encoding="utf-8") as f:
        return sorted(fds), sum("memslot_" in line for line in f)


@case("vhost-user: shared memory: mapped and unmapped 10,000 times, which costs no descriptor and no memslot")
def _(m):
    process = server(m, SHM)
    trace = m.path("trace")
    with open(trace, "wb") as f:
        guest = m.start(m.command("vhost_user_shm", *MEMORY, *device(m), "--trace", "memslot_*", "--cmdline",
                                  "test=again"), stdin=subprocess.PIPE, stderr=f)
    first = None
    for step in ("the device runs", "10,000 times", "two pages are mapped", "the device is reset"):
        m.wait_for(guest, b"step\n", 60)
        # A descriptor is closed a little after the answer went out.
        end = time.monotonic() + 10 * m.slack
        while (now := holdings(guest, trace)) != first and first and time.monotonic() < end:
            time.sleep(0.01)
        first = first or now
        check(now == first, f"{step}: {now}, but to begin with {first}")
        check(first[0] and first[1], "nothing is counted")
        guest.stdin.write(b"\n")
        guest.stdin.flush()
    m.finish(guest, 60).expect(0, out="passed\n$")
    # What is not mapped is looked at, which shows that the count counts.
    check(holdings(process, trace)[1] > first[1], "no memslot was changed at all")
    faults = said_by(process)
    check("fault" not in faults, faults)


@case("vhost-user: shared memory: the back-end hangs up")
def _(m):
    server(m, SHM)
    m.run("vhost_user_shm", *MEMORY, *device(m), "--cmdline", "test=gone").expect(0, out="passed\n$")


# Answers on the main channel that come only when a mapping of the back-end's own has been made.
for _name, _trick in (("SET_MEM_TABLE", f"map={SET_MEM_TABLE}:0:0x1000:0x1000"),
                      ("ADD_MEM_REG", f"map={ADD_MEM}@1:0:0x1000:0x1000"),
                      ("SET_VRING_ENABLE", f"map={SET_VRING_ENABLE}@1:0:0x1000:0x1000"),
                      ("GET_VRING_BASE", f"map={GET_VRING_BASE}@1:0:0x1000:0x1000"),
                      ("GET_CONFIG", f"map={GET_CONFIG}@1:0:0x1000:0x1000")):
    good(f"maps before it answers {_name}", "vhost_user", "device-reset", SHM, _trick,
         *(["without-protocol=15"] if _name == "SET_MEM_TABLE" else []))

# -- hostile guests

for _ring, _cmdline in RINGS[:2]:
    for _test in ("addresses", "sizes", "rings", "notify", "registers", "statuses", "pci"):
        good(f"hostile guest: {_test}, {_ring}", "vhost_user_hostile", _test, cmdline=_cmdline, lines=60)
good("hostile guest: two CPUs", "vhost_user_hostile", "two", more=("--cpus", "2"), lines=60)
for _seed in range(1, 4):
    good(f"hostile guest: random writes, {_seed}", "vhost_user_hostile", "random", cmdline=f" seed={_seed}", lines=200,
         timeout=120)

# -- back-ends that die, and may come back

for _ring, _cmdline in RINGS[:2]:
    @case(f"vhost-user: the back-end dies, {_ring}")
    def _(m, cmdline=_cmdline):
        server(m)
        r = m.run("vhost_user", *MEMORY, *device(m), "--cmdline", f"test=death{cmdline}")
        r.expect(0, out="dead\npassed", err="the driver is told to reset the device")
        check(len(r.err.splitlines()) == 1, str(r))

    @case(f"vhost-user: the back-end dies, and its successor loses nothing, {_ring}")
    def _(m, cmdline=_cmdline):
        process = server(m)
        guest = m.start(m.command("vhost_user", *MEMORY, *device(m, options=",reconnect=on"), "--cmdline",
                                  f"test=death back{cmdline}"))
        m.wait_for(guest, b"dead\n")
        process.wait(20 * m.slack)
        again = server(m)
        m.finish(guest, 60).expect(0, out="passed\n$", err="waiting for it to come back.*is back")
        faults = said_by(again)
        check("fault" not in faults, faults)


@case("vhost-user: what comes back is another device")
def _(m):
    process = server(m)
    guest = m.start(m.command("vhost_user", *MEMORY, *device(m, options=",reconnect=on"), "--cmdline", "test=death back"))
    m.wait_for(guest, b"dead\n")
    process.wait(20 * m.slack)
    server(m, "queues=1", "without=34", "without=29")
    seen = b""
    while b"is back has fewer features\n" not in seen:
        byte = os.read(guest.stderr.fileno(), 1)
        check(byte, seen)
        seen += byte
    check(b"the back-end is back\n" not in seen, seen)
    ends(m, guest)


for _seed in range(2):
    @case(f"vhost-user: the back-end is killed at random, {_seed}")
    def _(m, seed=_seed):
        process = server(m)
        guest = m.start(m.command("vhost_user", *MEMORY, *device(m), "--cmdline", "test=device-reset"))
        time.sleep(random.Random(seed).random() / 2)
        process.kill()
        # vmm has not begun to run and ends, or the test has passed, or the guest is told and then waits in vain.
        err = b""
        while b"the driver is told to reset the device\n" not in err:
            byte = os.read(guest.stderr.fileno(), 1)
            if not byte:
                break
            err += byte
        if byte:
            ends(m, guest)
            return
        r = m.finish(guest, 60)
        check(r.status in (0, 1, 17), f"vmm died\n{err}\n{r}")
        check(len(err.splitlines()) <= 2, err)

for _name, _cmdline, _lines in (("hangs up", "", 1), ("closes its own channel", " channel=1", 1)):
    good(f"the back-end {_name}", "vhost_user", "hang-up", cmdline=_cmdline, lines=_lines)

# -- deadlines


def ends(m, process, said=b""):
    """It ends within a second of the first SIGTERM, or of those that it takes to stop a guest that does not listen."""
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    err = b""
    while said and said not in err:
        byte = os.read(process.stderr.fileno(), 1)
        check(byte, f"{said} is not in {err}")
        err += byte
    while not said and process.poll() is None:
        time.sleep(0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    took = time.monotonic() - begin
    check(took < m.slack, f"vmm took {took:.2f} s to end")
    process.wait(20 * m.slack)
    err = (err + process.stderr.read()).decode("latin-1")
    check("Sanitizer" not in err and "leaving it behind" not in err, err)


ONCE = (GET_FEATURES, GET_PROTOCOL, SET_OWNER, GET_QUEUE_NUM, GET_SLOTS, SET_BACKEND_REQ_FD, GET_SHMEM, GET_CONFIG)
RUNNING = (SET_FEATURES, SET_STATUS, GET_STATUS, ADD_MEM, GET_INFLIGHT, SET_INFLIGHT, SET_VRING_NUM, SET_VRING_BASE,
           SET_VRING_ADDR, SET_VRING_CALL, SET_VRING_KICK, SET_VRING_ENABLE)
RESETTING = (GET_VRING_BASE, RESET_DEVICE, SET_STATUS, REM_MEM)

for _request in ONCE:
    @case(f"vhost-user: SIGTERM, the back-end does not answer request {_request} at the start")
    def _(m, request=_request):
        process = server(m, f"mute={request}", SHM)
        guest = m.start(m.command("vhost_user", *MEMORY, *device(m, options=",timeout=600000"), "--cmdline",
                                  "test=idle"))
        m.wait_for(process, b"mute\n")
        check(guest.poll() is None, "vmm did not wait")
        ends(m, guest, b"given up\n")

    @case(f"vhost-user: the back-end does not answer request {_request} at the start")
    def _(m, request=_request):
        server(m, f"mute={request}", SHM)
        r = m.run("vhost_user", *MEMORY, *device(m, options=late(m)), "--cmdline", "test=idle")
        r.expect(1, err="the back-end does not reply")
        check(len(r.err.splitlines()) == 1, str(r))

    @case(f"vhost-user: the back-end hangs up on request {_request} at the start")
    def _(m, request=_request):
        server(m, f"close={request}", SHM)
        r = m.run("vhost_user", *MEMORY, *device(m, options=",timeout=60000"), "--cmdline", "test=idle")
        r.expect(1, err="the back-end closed the connection")
        check(r.seconds < 10 * m.slack, str(r))

for _how in ("mute", "close", "nack"):
    for _request in RUNNING:
        if _how == "nack" and _request in (GET_STATUS, GET_INFLIGHT):
            continue

        @case(f"vhost-user: {_how} at request {_request} when the driver is ready")
        def _(m, how=_how, request=_request):
            server(m, f"{how}={request}@1")
            r = m.run("vhost_user", *MEMORY, *device(m, options=late(m) if how == "mute" else ""), "--cmdline",
                      "test=lost")
            r.expect(0, out="passed\n$", err="the driver is told to reset the device")
            check(len(r.err.splitlines()) == 1, str(r))

    @case(f"vhost-user: {_how} at SET_MEM_TABLE")
    def _(m, how=_how):
        server(m, f"{how}={SET_MEM_TABLE}@1", "without-protocol=15")
        options = late(m) if how == "mute" else ""
        r = m.run("vhost_user", *MEMORY, *device(m, options=options), "--cmdline", "test=lost")
        r.expect(0, out="passed\n$", err="the driver is told to reset the device")

for _request in RUNNING[:1] + RUNNING[3:4] + RUNNING[-1:]:
    @case(f"vhost-user: SIGTERM, no answer to request {_request} when the driver is ready")
    def _(m, request=_request):
        process = server(m, f"mute={request}@1")
        guest = m.start(m.command("vhost_user", *MEMORY, *device(m, options=",timeout=600000"), "--cmdline",
                                  "test=lost"))
        m.wait_for(process, b"mute\n")
        check(guest.poll() is None, "vmm did not wait")
        ends(m, guest)

for _name, _cmdline in (("a device reset", ""), ("a queue reset", " queue"), ("a write to its configuration", " config")):
    @case(f"vhost-user: SIGTERM, the back-end is mute at {_name}")
    def _(m, cmdline=_cmdline):
        server(m)
        guest = m.start(m.command("vhost_user", *MEMORY, *device(m, options=",timeout=600000"), "--cmdline",
                                  f"test=mute hang deaf=1{cmdline}"))
        m.wait_for(guest, b"waiting\n")
        ends(m, guest)

    @case(f"vhost-user: the back-end is mute at {_name}")
    def _(m, cmdline=_cmdline):
        server(m)
        r = m.run("vhost_user", *MEMORY, *device(m, options=late(m)), "--cmdline", f"test=mute{cmdline}")
        r.expect(0, out="passed\n$")
        check(len(r.err.splitlines()) <= 2, str(r))

# -- what a back-end may get wrong before the guest runs: arguments, and what vmm says then


def patch(request, offset, size, value):
    return f"patch={request}:{offset}:{size}:{value}"


REFUSED = [
    ("GET_FEATURES: another request", [patch(GET_FEATURES, REQUEST, 4, 2)], "is not one to it"),
    ("GET_FEATURES: no reply", [patch(GET_FEATURES, FLAGS, 4, 1)], "is not one to it"),
    ("GET_FEATURES: version 0", [patch(GET_FEATURES, FLAGS, 4, 4)], "is not one to it"),
    ("GET_FEATURES: version 2", [patch(GET_FEATURES, FLAGS, 4, 6)], "is not one to it"),
    ("GET_FEATURES: size 4", [f"cut={GET_FEATURES}:16"], "4 bytes"),
    ("GET_FEATURES: size 0", [f"cut={GET_FEATURES}:12"], "0 bytes"),
    ("GET_FEATURES: size 12", [f"extra={GET_FEATURES}:4"], "12 bytes"),
    ("GET_FEATURES: size 2 GiB", [patch(GET_FEATURES, SIZE, 4, 0x80000000)], "2147483648 bytes"),
    ("GET_FEATURES: size 4 GiB", [patch(GET_FEATURES, SIZE, 4, 0xffffffff)], "4294967295 bytes"),
    ("GET_FEATURES: header cut", [f"cut={GET_FEATURES}:7"], "does not reply"),
    ("GET_FEATURES: body cut", [f"cut={GET_FEATURES}:15", patch(GET_FEATURES, SIZE, 4, 8)], "does not reply"),
    ("GET_FEATURES: only legacy", ["without=32", "without=34"], "legacy"),
    ("GET_PROTOCOL_FEATURES: short", [f"cut={GET_PROTOCOL}:16"], "4 bytes"),
    ("GET_QUEUE_NUM: 0", [patch(GET_QUEUE_NUM, BODY, 8, 0)], "GET_QUEUE_NUM"),
    ("GET_QUEUE_NUM: fewer than are wanted", [patch(GET_QUEUE_NUM, BODY, 8, 3)], "GET_QUEUE_NUM"),
    ("GET_QUEUE_NUM: short", [f"cut={GET_QUEUE_NUM}:14"], "2 bytes"),
    ("GET_MAX_MEM_SLOTS: short", [f"cut={GET_SLOTS}:12"], "0 bytes"),
    ("SET_OWNER: refused", [f"nack={SET_OWNER}"], "SET_OWNER: the back-end refuses"),
    ("SET_BACKEND_REQ_FD: refused", [f"nack={SET_BACKEND_REQ_FD}"], "the back-end refuses"),
    ("GET_SHMEM_CONFIG: short", [SHM, f"cut={GET_SHMEM}:84"], "72 bytes"),
    ("GET_SHMEM_CONFIG: a byte less", [SHM, f"cut={GET_SHMEM}:2067"], "2055 bytes"),
    ("GET_SHMEM_CONFIG: a byte more", [SHM, f"extra={GET_SHMEM}:1"], "2057 bytes"),
    ("GET_SHMEM_CONFIG: two said, one there", [SHM, "shmem-count=2"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: none said, one there", [SHM, "shmem-count=0"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: 257 said", [SHM, "shmem-count=257"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: 2^32 - 1 said", [SHM, "shmem-count=4294967294"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: 100 bytes", ["shmem=100"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: 2^62", ["shmem=0x4000000000000000"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: 2^64 - 4096", ["shmem=0xfffffffffffff000"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: a sum that wraps", ["shmem=0x8000000000000000,0x8000000000000000"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: 2^46", ["shmem=0x400000000000"], "GET_SHMEM_CONFIG"),
    ("GET_SHMEM_CONFIG: 256 regions", ["shmem=" + "0x1000," * 256], "GET_SHMEM_CONFIG"),
    ("GET_CONFIG: another request", [patch(GET_CONFIG, REQUEST, 4, 25)], "is not one to it"),
]

for _name, _tricks, _said in REFUSED:
    @case(f"vhost-user: refused: {_name}")
    def _(m, tricks=_tricks, said=_said):
        process = server(m, *tricks)
        options = ",queues=4" + (late(m) if said == "does not reply" else "")
        r = m.run("vhost_user", *MEMORY, *device(m, options=options), "--cmdline", "test=idle", "--timeout", 5)
        r.expect(1, err=said)
        check(len(r.err.splitlines()) == 1, f"more than a line\n{r}")
        check(process.poll() is None, "the back-end died")

# What costs a feature at most, or nothing: the guest's test passes with the rest.


def frame(request, flags, size, payload=b""):
    return struct.pack("<III", request, flags, size) + payload


def send(request, data):
    return f"send={request}:{data.hex()}"


ACCEPTED = [
    ("GET_FEATURES: descriptors", [f"fds={GET_FEATURES}:3:0"], "traffic"),
    ("GET_FEATURES: as many descriptors as there may be", [f"fds={GET_FEATURES}:30:0"], "traffic"),
    ("GET_FEATURES: all bits", [patch(GET_FEATURES, BODY, 8, 0xfffffffffffffbff), "with=40"], None),
    ("GET_PROTOCOL_FEATURES: all bits but those of no use here",
     [f"with-protocol={bit}" for bit in (*range(1, 3), 4, 6, 7, 8, 11, 17, 18, 19, 20, 21)], "traffic"),
    ("GET_QUEUE_NUM: 2^60", [patch(GET_QUEUE_NUM, BODY, 8, 1 << 60), "without-protocol=12"], "traffic"),
    ("GET_MAX_MEM_SLOTS: 0", ["slots=0"], "traffic"),
    ("GET_MAX_MEM_SLOTS: 2^64 - 1", ["slots=18446744073709551615"], "traffic"),
    ("GET_CONFIG: nothing", [f"cut={GET_CONFIG}:12"], "traffic"),
    ("GET_CONFIG: short", [f"cut={GET_CONFIG}:40"], "traffic"),
    ("GET_CONFIG: another offset", [patch(GET_CONFIG, BODY, 4, 4)], "traffic"),
    ("GET_CONFIG: another size", [patch(GET_CONFIG, BODY + 4, 4, 0xffffffff)], "traffic"),
    ("GET_INFLIGHT_FD: no descriptor", [f"fds={GET_INFLIGHT}:0:0"], None),
    ("GET_INFLIGHT_FD: two descriptors", [f"fds={GET_INFLIGHT}:2:0"], None),
    ("GET_INFLIGHT_FD: no file", [f"fds={GET_INFLIGHT}:1:6"], None),
    ("GET_INFLIGHT_FD: size 2^63", [patch(GET_INFLIGHT, BODY, 8, 1 << 63)], None),
    ("GET_INFLIGHT_FD: offset 2^64 - 1", [patch(GET_INFLIGHT, BODY + 8, 8, (1 << 64) - 1)], None),
    ("GET_INFLIGHT_FD: short", [f"cut={GET_INFLIGHT}:20"], None),
    ("GET_STATUS: no FEATURES_OK", [patch(GET_STATUS, BODY, 8, 3)], None),
    ("GET_STATUS: all bits", [patch(GET_STATUS, BODY, 8, (1 << 64) - 1)], None),
    ("GET_STATUS: short", [f"cut={GET_STATUS}:13"], None),
    ("GET_VRING_BASE: another queue", [patch(GET_VRING_BASE, BODY, 4, 77)], "resets"),
    ("GET_VRING_BASE: an index beyond everything", [patch(GET_VRING_BASE, BODY + 4, 4, 0xffffffff)], "resets"),
    ("GET_VRING_BASE: short", [f"cut={GET_VRING_BASE}:16"], "resets"),
    ("GET_VRING_BASE: long", [f"extra={GET_VRING_BASE}:2000"], "resets"),
    ("RESET_DEVICE: refused", [f"nack={RESET_DEVICE}"], "resets"),
    ("REM_MEM_REG: refused", [f"nack={REM_MEM}"], "resets"),
    ("SET_VRING_ENABLE: answered twice", [f"twice={SET_VRING_ENABLE}@1"], None),
    ("GET_FEATURES: answered twice", [f"twice={GET_FEATURES}"], "any"),
    ("asks, version 0", [send(GET_CONFIG, frame(9, 8, 40, bytes(40)))], "traffic"),
    ("asks, size 2 GiB", [send(GET_CONFIG, frame(9, 1, 0x80000000))], "traffic"),
    ("asks, half a header", [send(GET_CONFIG, frame(9, 1, 40)[:7])], "traffic"),
    ("asks, half a message", [send(GET_CONFIG, frame(9, 1, 40, bytes(20)))], "traffic"),
    ("asks, a reply", [send(GET_CONFIG, frame(9, 5, 8, bytes(8)))], "traffic"),
    ("asks what nobody knows", [send(GET_CONFIG, frame(77, 9, 0)), send(SET_VRING_ENABLE, frame(78, 9, 4, bytes(4)))],
     "traffic"),
    ("asks for memory that was not negotiated", ["without-protocol=22", send(GET_CONFIG, frame(9, 9, 40, bytes(40)))],
     "traffic"),
    ("maps without descriptors of its own", [SHM, "without-protocol=10", send(SET_VRING_NUM, frame(9, 9, 40, bytes(40)))],
     "traffic"),
    ("tells of changes while it answers", [send(SET_VRING_ENABLE, frame(2, 1, 0) * 50)], "traffic"),
    ("tells of changes before there is a driver", [send(SET_BACKEND_REQ_FD, frame(2, 1, 0)),
                                                   send(GET_CONFIG + 0, frame(2, 1, 0))], "traffic"),
    ("calls queues that are not there", [send(SET_VRING_ENABLE, frame(4, 1, 8, struct.pack("<II", n, 0))) for n in
                                         (4, 0xffff, 0xffffffff)], "traffic"),
]

for _name, _tricks, _test in ACCEPTED:
    @case(f"vhost-user: tolerated: {_name}")
    def _(m, tricks=_tricks, test=_test):
        process = server(m, *tricks)
        command = {"resets": "test=lost reset"}.get(test, f"test={test if test and test != 'any' else 'lost reset'}")
        r = m.run("vhost_user", *MEMORY, *device(m), "--cmdline", command, timeout=60)
        if test == "any":
            check(r.status in (0, 1), str(r))
        else:
            r.expect(0, out="passed\n$")
        check(len(r.err.splitlines()) <= 8, f"too many lines on stderr\n{r}")
        check(process.poll() is None, "the back-end died")


@case("vhost-user: a back-end that is older than the number of shared memory's feature")
def _(m):
    # It maps with bit 21 (GPA_ADDRESSES today) in the place of 22: a hint tells.
    server(m, "without-protocol=22", "with-protocol=21", send(SET_VRING_ENABLE, frame(9, 9, 40, bytes(40))))
    r = m.run("vhost_user", *MEMORY, *device(m), "--cmdline", "test=traffic")
    r.expect(0, out="passed\n$", err="feature 21.*22")


@case("vhost-user: a flood on the back-end channel")
def _(m):
    # More than a socket holds, none of it wanting an answer; and the answers of what does are not read.
    data = (frame(2, 1, 0) + frame(99, 9, 0)) * 80
    server(m, *[send(request, data) for request in (SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, SET_VRING_CALL)])
    m.run("vhost_user", *MEMORY, *device(m), "--cmdline", "test=lost reset", timeout=60).expect(0, out="passed\n$")


# -- options, and nobody there

@case("vhost-user: nobody listens")
def _(m):
    m.run("vhost_user", *MEMORY, *device(m)).expect(1, err=r"--vhost-user .*: connect: No such file")
    m.file("file", b"")
    m.run("vhost_user", *MEMORY, *device(m, "file")).expect(1, err="connect: Connection refused")


@case("vhost-user: options")
def _(m):
    for text in ("", "socket=x", "device=fs", "socket=,device=fs", "socket=x,device=", "socket=x,device=0",
                 "socket=x,device=64", "socket=x,device=nothing", "socket=x,device=blk,queues=0",
                 "socket=x,device=blk,queue-size=3", "socket=x,device=blk,queue-size=1", "socket=x,device=blk,timeout=0",
                 "socket=x,device=blk,queue-size=2048", "socket=x,device=blk,reconnect=maybe",
                 "socket=x,device=fs,tag=" + "t" * 37, "socket=x,device=net,mac=1:2:3", "socket=x,device=60,config-size=257",
                 "socket=x,device=blk,other=1", "socket=" + "x" * 120 + ",device=blk"):
        r = m.run("vhost_user", "--vhost-user", text).expect(1)
        check(re.search("vhost-user", r.err) and len(r.err.splitlines()) <= 2, f"{text}\n{r}")
        check("connect:" not in r.err, str(r))
