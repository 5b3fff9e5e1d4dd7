# SPDX-License-Identifier: MIT
"""A network card, from the guest's side: its other end is here, a socket that sends each frame back."""

import itertools
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time

from cases_hyperv import BACKENDS, backend
from harness import Skip, case, check

LINES_MAX = 600  # what a hostile guest may make us say in a run


def echo(frame):
    return frame[6:12] + frame[0:6] + frame[12:]


def serve_datagrams(sock):
    try:
        while True:
            frame = sock.recv(65536)
            if not frame:
                return
            sock.send(echo(frame))
    except OSError:
        pass


def serve_stream(sock):
    """Each frame after its length. Answers come in pieces that end anywhere."""
    data, step = b"", 1
    try:
        while True:
            more = sock.recv(65536)
            if not more:
                return
            data += more
            while len(data) >= 4 and len(data) >= 4 + struct.unpack(">I", data[:4])[0]:
                size = struct.unpack(">I", data[:4])[0]
                answer = data[:4] + echo(data[4:4 + size])
                data = data[4 + size:]
                step = step % 97 + 1
                sock.sendall(answer[:step])
                sock.sendall(answer[step:])
    except OSError:
        pass


SERVERS = {"datagrams": (socket.SOCK_SEQPACKET, serve_datagrams), "stream": (socket.SOCK_STREAM, serve_stream)}


class Peer:
    """A socket pair: one end for vmm, by number, the other one served here."""

    def __init__(self, kind):
        which, serve = SERVERS[kind]
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, which)
        self.fd = self.theirs.fileno()
        self.thread = threading.Thread(target=serve, args=(self.ours,), daemon=True)
        self.thread.start()

    def close(self):
        self.theirs.close()
        self.thread.join(10)
        self.ours.close()


def net_case(name, test, kind="datagrams", hostile=False, backends=BACKENDS, timeout=30, options=()):
    def register(which):
        @case(f"netvsc: {name}, {which}")
        def run(m):
            peer = Peer(kind)
            try:
                process = m.start(m.command("netvsc", *backend(m, which), "--vmbus", "--net", f"fd={peer.fd}", *options,
                                            "--stats", m.path("stats.json"), "--cmdline", f"test={test}"),
                                  pass_fds=[peer.fd])
                r = m.finish(process, timeout)
            finally:
                peer.close()
            r.expect(0, out="passed\n$")
            check(len(r.err.splitlines()) <= (LINES_MAX if hostile else 0), str(r))
            card = m.stats()["net"][0]
            check(card["rx_dropped"] == 0 and card["link"] == "up", str(card))
    for which in backends:
        register(which)


net_case("frames by section and by pages, every version", "echo")
net_case("frames over a stream", "echo", kind="stream")
net_case("700 frames under way", "stream")
net_case("700 frames under way, over a stream", "stream", kind="stream")
net_case("OIDs", "queries")
net_case("open and close, with frames under way", "reopen")
net_case("frames that lie", "bad-sends", hostile=True)
net_case("completions of nothing", "bad-completions", hostile=True)
net_case("messages out of order", "bad-messages", hostile=True)
net_case("control messages that lie", "bad-control", hostile=True)


def wrong(name, value, text):
    @case(f"--net {name}")
    def run(m):
        r = m.run("netvsc", "--vmbus", "--net", value)
        check(r.status == 1 and text in r.err and len(r.err.splitlines()) == 1, str(r))


wrong("with nothing behind it that it knows", "nothing", "must begin with tap=NAME, fd=N or user")
wrong("with a bad address", "user,mac=01:02:03:04:05:06", "mac= takes the address of one card")
wrong("with an unknown key", "user,speed=9", "'speed=9' is none of")
wrong("with a forward that is none", "user,hostfwd=tcp:80", "hostfwd= takes tcp:HOSTPORT")
wrong("with a descriptor that is not open", "fd=1000", "Bad file descriptor")
wrong("with a name that is none", "tap=a/b", "not a name")


@case("--net without --vmbus")
def _(m):
    r = m.run("netvsc", "--net", "user")
    check(r.status == 1 and "--net needs --vmbus" in r.err, str(r))


@case("--net fd= with a file")
def _(m):
    with open(m.file("file", b"x"), "rb") as f:
        r = m.finish(m.start(m.command("netvsc", "--vmbus", "--net", f"fd={f.fileno()}"), pass_fds=[f.fileno()]))
    check(r.status == 1 and "neither a tap nor a socket" in r.err, str(r))


@case("netvsc: link state and figures on the control socket")
def _(m):
    peer = Peer("datagrams")
    try:
        process = m.start(m.command("vmbus_ic", "--vmbus", "--net", f"fd={peer.fd},mac=02:00:00:00:00:07", "--control",
                                    m.path("socket"), "--cmdline", "test=serve"), pass_fds=[peer.fd])
        m.wait_for(process, b"ready\n")

        def ctl(*words, status=0):
            return m.finish(m.start([m.vmm, "ctl", m.path("socket"), *words])).expect(status).out

        check(json.loads(ctl("status"))["net"][0]["link"] == "up", "link at first")
        ctl("net-down")
        check(json.loads(ctl("status"))["net"][0]["link"] == "down", "link after net-down")
        ctl("net-up", "net=0")
        check(json.loads(ctl("status"))["net"][0]["link"] == "up", "link after net-up")
        ctl("net-down", "net=1", status=1)
        ctl("shutdown")
        m.finish(process).expect(0)
    finally:
        peer.close()


def link_goes_down(m, net, line, end, **kwargs):
    """Whatever ends the other end: one line on standard error, and status says that the link is down."""
    process = m.start(m.command("vmbus_ic", "--vmbus", "--net", net, "--control", m.path("socket"), "--cmdline",
                                "test=serve"), **kwargs)
    m.wait_for(process, b"ready\n")
    end()

    def ctl(*words):
        return m.finish(m.start([m.vmm, "ctl", m.path("socket"), *words])).expect(0).out

    deadline, down = time.monotonic() + 10 * m.slack, False
    while not down and time.monotonic() < deadline:
        down = json.loads(ctl("status"))["net"][0]["link"] == "down"
    ctl("shutdown")
    r = m.finish(process).expect(0)
    check(down, f"the link stays up\n{r}")
    check(re.fullmatch(f"vmm: --net {line}; the guest's link is down\n", r.err), str(r))


def end_case(kind):
    @case(f"netvsc: the other end closes, {kind}")
    def run(m):
        peer = Peer(kind)
        try:
            link_goes_down(m, f"fd={peer.fd}", r"fd=\d+: the other end has closed",
                           lambda: peer.ours.shutdown(socket.SHUT_RDWR), pass_fds=[peer.fd])
        finally:
            peer.close()


end_case("datagrams")
end_case("stream")


def passt_case(name, script, line):
    """A program in passt's place."""
    @case(f"netvsc: passt {name}")
    def run(m):
        os.chmod(m.file("passt", f"#!/bin/sh\n{script}\n".encode()), 0o755)
        link_goes_down(m, "user", line, lambda: None, env={**os.environ, "PATH": f"{m.directory}:{os.environ['PATH']}"})


passt_case("has a reason to end",
           "echo chatter >&2; echo no way out >&2; echo Failed to send 9 bytes to syslog >&2; exit 3",
           "user: passt has ended with status 3: no way out")
passt_case("says more than anybody reads", "seq -f %07.0f 0 99999 >&2 2>/dev/null; exit 1",
           r"user: passt has ended with status 1: \d{7}")  # the last line of those that fill the pipe
passt_case("is killed", "echo chatter >&2; kill -KILL $$", "user: passt was ended by signal 9")


class Tap:
    """A tap for vmm; what it sends there comes back, by a raw socket on the host's side."""

    PROTOCOL = 0x88b5  # the test guest's
    numbers = itertools.count()  # cases run side by side

    def __init__(self, queues):
        self.name = f"vmmt{os.getpid() % 100000}.{next(self.numbers)}"
        flags = ["multi_queue"] if queues > 1 else []
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK) or not shutil.which("ip"):
            raise Skip("/dev/net/tun or ip is not there or not permitted")
        made = self.ip("tuntap", "add", "dev", self.name, "mode", "tap", *flags)
        if made.returncode:
            raise Skip(f"no tap: {made.stderr.decode().strip()}")
        with open(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6", "w", encoding="ascii") as f:
            f.write("1")
        self.ip("link", "set", self.name, "txqueuelen", "5000", "up")
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(self.PROTOCOL))
        self.socket.bind((self.name, self.PROTOCOL))
        self.thread = threading.Thread(target=serve_datagrams, args=(self.socket,), daemon=True)
        self.thread.start()

    def ip(self, *arguments):
        return subprocess.run(["ip", *arguments], capture_output=True, check=False)

    def close(self):
        self.ip("link", "del", self.name)
        self.thread.join(10)
        self.socket.close()


def tap_case(name, test, queues=1):
    @case(f"netvsc: {name}, over a tap")
    def run(m):
        tap = Tap(queues)
        try:
            r = m.run("netvsc", "--vmbus", "--net", f"tap={tap.name},queues={queues}", "--stats", m.path("stats.json"),
                      "--cmdline", f"test={test}", timeout=60)
        finally:
            tap.close()
        r.expect(0, out="passed\n$")
        check(not r.err, str(r))
        check(m.stats()["net"][0]["tx_frames"] > 0, str(m.stats()["net"]))


@case("netvsc: the tap is deleted")
def _(m):
    tap = Tap(4)
    try:
        link_goes_down(m, f"tap={tap.name},queues=4", f"tap={tap.name}: the interface was deleted",
                       lambda: tap.ip("link", "del", tap.name))
    finally:
        tap.close()


tap_case("frames by section and by pages, every version", "echo")
tap_case("700 frames under way", "stream")
tap_case("open and close, with frames under way", "reopen", queues=4)
