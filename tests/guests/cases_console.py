# SPDX-License-Identifier: MIT
"""The host's end of the serial port: files, sockets, pipes, terminals."""

import os
import pty
import select
import signal
import socket
import stat
import subprocess
import termios
import time

from harness import Failure, case, check


def numbers(data):
    """The numbers of stream.c's lines, whose first may be cut off."""
    lines = data.decode("latin-1").split("\n")
    check(lines[-1] == "", f"the last line is not whole: {lines[-1]!r}")
    whole = [line for line in lines[:-1] if len(line) == 63]
    check(len(whole) >= len(lines) - 2, "damaged lines")
    return [int(line[:8]) for line in whole]


def check_rows(data, last, first=None):
    found = numbers(data)
    check(found == list(range(found[0], found[0] + len(found))), "lines are missing or out of order")
    check(found[-1] == last, f"ends with line {found[-1]}, not {last}")
    check(first is None or found[0] == first, f"begins with line {found[0]}, not {first}")


@case("serial: file")
def _(m):
    r = m.run("stream", "--serial", "file:out", "--cmdline", "lines=1000").expect(0)
    check(r.out == "", str(r))
    with open(m.path("out"), "rb") as f:
        check_rows(f.read(), 999, 0)


@case("serial: a file is emptied first")
def _(m):
    m.file("out", b"x" * 100000)
    m.run("stream", "--serial", "file:out", "--cmdline", "lines=2").expect(0)
    check(os.path.getsize(m.path("out")) == 128, "old contents are still there")


@case("serial: null")
def _(m):
    r = m.run("stream", "--serial", "null", "--cmdline", "lines=100", data=b"input").expect(0)
    check(r.out == "" and r.err == "", str(r))


@case("serial: a full disk is told once")
def _(m):
    r = m.run("stream", "--serial", "file:/dev/full", "--cmdline", "lines=100")
    check(r.status == 0 and "No space left" in r.err and r.err.count("No space") == 1, str(r))


@case("serial: all output arrives in a pipe that is read slowly")
def _(m):
    process = m.start(m.command("stream", "--cmdline", "lines=3000"))
    data = b""
    while True:
        piece = os.read(process.stdout.fileno(), 16384)
        if not piece:
            break
        data += piece
        time.sleep(0.02)
    m.finish(process).expect(0)
    check_rows(data, 2999, 0)


@case("serial: a reader that went away does not end the guest")
def _(m):
    reader, writer = os.pipe()
    process = m.start(m.command("stream", "--cmdline", "lines=1000"), stdout=writer)
    os.close(writer)
    os.read(reader, 100)
    os.close(reader)
    m.finish(process).expect(0)


def connect(m, seconds=5):
    client = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + seconds * m.slack
    while True:
        try:
            client.connect(m.path("serial"))
            client.settimeout(10 * m.slack)
            return client
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > end:
                raise Failure("nobody listens on the socket") from None
            time.sleep(0.01)


def somebody_listens(m):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(m.path("serial"))
        except ConnectionRefusedError:
            return False
        return True


def read_all(client):
    data = b""
    while True:
        piece = client.recv(65536)
        if not piece:
            return data
        data += piece


@case("serial: unix socket, output and input")
def _(m):
    process = m.start(m.command("uart", "--serial", "unix:serial", "--cmdline", "rx=100"))
    client = connect(m)
    data = b""
    while not data.endswith(b"ready\n"):
        data += client.recv(100)
    client.sendall(bytes(ord("a") + i % 26 for i in range(100)))
    check(b"received 100" in read_all(client), "no answer")
    m.finish(process).expect(0)
    check(not os.path.exists(m.path("serial")), "the socket is left behind")


@case("serial: a late client of a unix socket is told what it missed")
def _(m):
    process = m.start(m.command("tool", "--serial", "unix:serial", "--cmdline", "do=ignore-button", "--timeout", 10))
    time.sleep(0.3)
    for _ in range(3):  # each one anew
        client = connect(m)
        check(client.recv(100) == b"ready\n", "the output of before is lost")
        client.close()
    process.kill()
    process.wait()


@case("serial: a client of a unix socket that reads late stops the guest and loses nothing")
def _(m):
    process = m.start(m.command("stream", "--serial", "unix:serial", "--cmdline", "lines=8000"))
    client = connect(m)
    time.sleep(1)
    check(process.poll() is None, "the guest did not wait for its reader")
    check_rows(read_all(client), 7999)
    m.finish(process).expect(0)


@case("serial: a client of a unix socket that never reads does not stop the end")
def _(m):
    process = m.start(m.command("stream", "--serial", "unix:serial"))
    client = connect(m)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    m.finish(process, timeout=3).expect(-signal.SIGINT)
    client.close()


@case("serial: a socket left over by a killed run is taken over, a live one is not")
def _(m):
    first = m.start(m.command("tool", "--serial", "unix:serial", "--cmdline", "do=ignore-button"))
    connect(m).close()
    m.run("tool", "--serial", "unix:serial", "--cmdline", "exit=0").expect(1, err="--serial unix:serial: Address already")
    first.kill()
    first.wait()
    check(stat.S_ISSOCK(os.stat(m.path("serial")).st_mode), "no socket is left")
    # The kernel closes what a ring held only some time after the process is gone.
    end = time.monotonic() + 5 * m.slack
    while somebody_listens(m):
        check(time.monotonic() < end, "the killed run still listens")
        time.sleep(0.02)
    m.run("tool", "--serial", "unix:serial", "--cmdline", "exit=9").expect(9)


@case("serial: other files are not taken for a left-over socket")
def _(m):
    m.file("serial", b"precious")
    m.run("tool", "--serial", "unix:serial", "--cmdline", "exit=0").expect(1, err="--serial unix:serial: ")
    with open(m.path("serial"), "rb") as f:
        check(f.read() == b"precious", "the file is gone")


@case("SIGTERM twice ends a guest whose output nobody takes, soon")
def _(m):
    process = m.start(m.command("stream"))
    time.sleep(0.7)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10 * m.slack)
    except subprocess.TimeoutExpired:
        raise Failure("still running") from None
    check(process.returncode == -signal.SIGTERM, f"status {process.returncode}")


class Terminal:
    """vmm on a terminal of its own."""

    def __init__(self, m, *arguments):
        self.m = m
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = m.start(m.command(*arguments), stdin=self.slave, stdout=self.slave, stderr=self.slave,
                               start_new_session=True)
        self.seen = b""

    def wait_for(self, text, seconds=10):
        end = time.monotonic() + seconds * self.m.slack
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            check(ready, f"no {text!r}, only {self.seen!r}")
            self.seen += os.read(self.master, 1000)

    def send(self, data):
        os.write(self.master, data)

    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def finish(self, status):
        end = time.monotonic() + 10 * self.m.slack
        while self.process.poll() is None:
            check(time.monotonic() < end, f"still running; {self.seen!r}")
            if select.select([self.master], [], [], 0.01)[0]:
                self.seen += os.read(self.master, 1000)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 1000)
        after = termios.tcgetattr(self.slave)
        os.close(self.master)
        os.close(self.slave)
        check(self.process.returncode == status, f"status {self.process.returncode}, not {status}; {self.seen!r}")
        check(after == self.before, f"terminal not restored: {self.before} became {after}")


@case("terminal: raw while the guest runs, Ctrl-A x quits")
def _(m):
    t = Terminal(m, "tool", "--cmdline", "do=ignore-button")
    t.wait_for(b"ready\n")
    check(t.raw(), "not raw")
    t.send(b"\x01x")
    t.finish(0)
    check(b"Ctrl-A x" in t.seen, repr(t.seen))


@case("terminal: Ctrl-A ? lists the keys, and the guest goes on")
def _(m):
    t = Terminal(m, "tool", "--cmdline", "do=ignore-button")
    t.wait_for(b"ready\n")
    t.send(b"\x01?")
    t.wait_for(b"Ctrl-A p")
    t.send(b"\x01")
    time.sleep(0.05)
    t.send(b"x")
    t.finish(0)


@case("terminal: Ctrl-A p presses the power button")
def _(m):
    t = Terminal(m, "acpi", "--cmdline", "button poweroff")
    t.wait_for(b"ready\n")
    t.send(b"\x01p")
    t.finish(0)
    check(b"button" in t.seen, repr(t.seen))


@case("terminal: input goes to the guest, Ctrl-C too")
def _(m):
    t = Terminal(m, "uart", "--cmdline", "rx=26")
    t.wait_for(b"ready\n")
    t.send(b"abcdefghijklm")
    t.send(b"nopqrstuvwxyz")
    t.finish(0)
    t = Terminal(m, "tool", "--cmdline", "do=ignore-button")
    t.wait_for(b"ready\n")
    t.send(b"\x03\x1a\x1c")
    time.sleep(0.2)
    check(t.process.poll() is None, "a control character ended vmm")
    t.send(b"\x01x")
    t.finish(0)


@case("terminal: Ctrl-A Ctrl-A sends one Ctrl-A")
def _(m):
    # The guest expects 'a' first: it fails with the byte that it got instead.
    t = Terminal(m, "uart", "--cmdline", "rx=1")
    t.wait_for(b"ready\n")
    t.send(b"\x01\x01")
    t.finish(17)
    check(b"got 0x1, want 0x61" in t.seen, repr(t.seen))


def restored_case(name, status, *signals):
    @case(f"terminal: restored after {name}")
    def run(m):
        t = Terminal(m, "tool", "--cmdline", "do=ignore-button")
        t.wait_for(b"ready\n")
        check(t.raw(), "not raw")
        for number in signals:
            t.process.send_signal(number)
            time.sleep(0.1)
        t.finish(status)


restored_case("SIGSEGV", -signal.SIGSEGV, signal.SIGSEGV)
restored_case("SIGABRT", -signal.SIGABRT, signal.SIGABRT)
restored_case("SIGQUIT", -signal.SIGQUIT, signal.SIGQUIT)
restored_case("SIGINT", -signal.SIGINT, signal.SIGINT)
restored_case("SIGHUP", -signal.SIGHUP, signal.SIGHUP)
restored_case("SIGTERM twice", -signal.SIGTERM, signal.SIGTERM, signal.SIGTERM)


@case("terminal: restored after the guest's crash, its end, and --timeout")
def _(m):
    for arguments, status in ((["--cmdline", "do=triple"], 4), (["--cmdline", "exit=3"], 3),
                              (["--cmdline", "do=hlt", "--timeout", "0.3"], 124)):
        Terminal(m, "tool", *arguments).finish(status)


@case("terminal: untouched when the console is elsewhere")
def _(m):
    t = Terminal(m, "tool", "--serial", "null", "--cmdline", "do=hlt", "--timeout", "0.5")
    time.sleep(0.2)
    check(not t.raw(), "raw")
    t.finish(124)
