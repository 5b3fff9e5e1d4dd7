# SPDX-License-Identifier: MIT
"""The control socket of a running vmm, by its own client and by clients that misbehave."""

import json
import os
import select
import signal
import socket
import stat
import time

from harness import Failure, case, check


def launch(m, guest, *arguments, cmdline="", ready=b"ready\n"):
    process = m.start(m.command(guest, "--control", "control", "--cmdline", cmdline, *arguments))
    if ready:
        m.wait_for(process, ready)
    return process


def ctl(m, *arguments, status=0):
    r = m.finish(m.start([m.vmm, "ctl", *arguments]))
    r.expect(status)
    return r


def status_of(m):
    return json.loads(ctl(m, "control", "status").out)


class Client:
    """A connection; it waits for the socket, as a script does that has just started vmm."""

    def __init__(self, m):
        self.socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 5 * m.slack
        while True:
            try:
                self.socket.connect(m.path("control"))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end:
                    raise Failure("nobody listens on the control socket") from None
                time.sleep(0.01)
        self.socket.settimeout(10 * m.slack)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def ask(self, command, ident=None, **arguments):
        self.send(json.dumps({"id": ident, "command": command, "arguments": arguments}).encode() + b"\n")

    def answer(self):
        line = self.file.readline()
        check(line.endswith(b"\n"), f"no whole answer: {line!r}")
        return json.loads(line)

    def do(self, command, **arguments):
        self.ask(command, 1, **arguments)
        answer = self.answer()
        check(answer["ok"], str(answer))
        return answer["result"]

    def error(self, command, **arguments):
        self.ask(command, 1, **arguments)
        answer = self.answer()
        check(not answer["ok"] and answer["id"] == 1, str(answer))
        return answer["error"]

    def close(self):
        self.file.close()
        self.socket.close()


def quit_and_check(m, process, status=0):
    ctl(m, "control", "quit")
    m.finish(process).expect(status)
    check(not os.path.exists(m.path("control")), "the socket is left behind")


@case("control: status")
def _(m):
    process = launch(m, "tool", "--cpus", 2, "--memory", "64M", cmdline="do=ignore-button")
    mode = os.stat(m.path("control")).st_mode
    check(stat.S_ISSOCK(mode) and mode & 0o777 == 0o600, f"mode {mode:o}")
    s = status_of(m)
    check(s["state"] == "running" and s["cpus"] == 2 and s["memory"] == 64 << 20 and s["resets"] == 0, str(s))
    check(s["uptime_ms"] > 0 and s["user_exits"] > 0 and s["kernel"].endswith("tool"), str(s))
    quit_and_check(m, process)


@case("control: a client may come before the guest runs")
def _(m):
    process = launch(m, "tool", cmdline="do=spin", ready=None)
    client = Client(m)
    check(client.do("status")["state"] == "running", "not running")
    client.do("quit")
    check(client.file.readline() == b"", "not closed at the end")
    m.finish(process).expect(0)


@case("control: devices and statistics")
def _(m):
    process = launch(m, "tool", "--device", "pci-test", cmdline="post=3 do=ignore-button")
    devices = json.loads(ctl(m, "control", "devices").out)
    check("uart" in devices["devices"] and "pci" in devices["devices"], str(devices))
    com1 = [r for r in devices["ports"] if r["base"] == 0x3f8]
    check(len(com1) == 1 and com1[0]["length"] == 8, str(devices))
    check(devices["memory"], str(devices))
    s = json.loads(ctl(m, "control", "stats").out)
    check([p["code"] for p in s["post"]] == [1, 2, 3] and s["user_exits"] > 0, str(s))
    check(s["time"]["end_ms"] > s["time"]["first_run_ms"] > 0, str(s))
    quit_and_check(m, process)


@case("control: statistics are those of --stats")
def _(m):
    process = launch(m, "tool", "--stats", "stats.json", cmdline="post=3 do=ignore-button")
    live = json.loads(ctl(m, "control", "stats").out)
    quit_and_check(m, process)
    last = m.stats()
    check(live.keys() == last.keys() and live["post"] == last["post"], f"{live}\n{last}")


@case("control: help lists every command, and unknown ones are refused")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    listed = json.loads(ctl(m, "--json", "control", "help").out)
    text = ctl(m, "control", "help").out
    names = {c["name"] for c in listed}
    check({"help", "status", "stats", "devices", "pause", "resume", "reset", "quit", "powerbutton"} <= names, str(names))
    check(all(name in text for name in names), text)
    r = ctl(m, "control", "no-such", status=1)
    check(r.out == "" and r.err == "vmm: ctl: no-such: no command 'no-such'; help lists them\n", str(r))
    ctl(m, "control", "pause", "force=true", status=1).expect(1, err="no argument 'force'")
    quit_and_check(m, process)


def drain(process, seconds):
    """Reads what the guest prints for so long."""
    end = time.monotonic() + seconds
    while prints(process, max(0, end - time.monotonic())):
        pass


def prints(process, seconds):
    """Whether the guest prints anything within so long."""
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return bool(ready) and bool(os.read(process.stdout.fileno(), 65536))


@case("control: pause and resume")
def _(m):
    process = launch(m, "stream", "--cpus", 2, cmdline="lines=100000000", ready=b"\n")
    client = Client(m)
    for _ in range(3):
        client.do("pause")
        client.do("pause")  # once is enough
        check(client.do("status")["state"] == "paused", "not paused")
        drain(process, 0.2)  # what was under way
        exits = client.do("status")["user_exits"]
        check(not prints(process, 0.3), "a paused guest prints")
        check(client.do("status")["user_exits"] == exits, "a paused guest runs")
        check("paused" in client.error("powerbutton"), "a paused guest cannot take it")
        client.do("resume")
        client.do("resume")
        check(client.do("status")["state"] == "running", "not running")
        check(prints(process, 10 * m.slack), "a resumed guest does not print")
    client.do("quit")
    m.finish(process).expect(0)


@case("control: pauses lose nothing of what the guest prints")
def _(m):
    process = launch(m, "stream", cmdline="lines=8000", ready=None)
    client = Client(m)
    for _ in range(20):  # the first one comes before, or soon after, the first instruction
        client.do("pause")
        client.do("resume")
    r = m.finish(process).expect(0)
    check([line[:8] for line in r.out.splitlines()] == [f"{i:08}" for i in range(8000)], "damaged output")


@case("control: four spinning CPUs stop and go on")
def _(m):
    process = launch(m, "tool", "--cpus", 4, "--timeout", 20, cmdline="do=spin", ready=None)
    client = Client(m)
    for _ in range(50):
        client.do("pause")
        client.do("resume")
    client.do("quit")
    m.finish(process).expect(0)


@case("control: reset, running and paused")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    client = Client(m)
    client.do("reset")
    m.wait_for(process, b"ready\n")
    check(client.do("status")["resets"] == 1, "not reset")
    client.do("pause")
    client.do("reset")
    end = time.monotonic() + 10 * m.slack
    while client.do("status")["resets"] < 2:
        check(time.monotonic() < end, "a paused machine is not reset")
        time.sleep(0.01)
    check(client.do("status")["state"] == "paused", "a reset has resumed the machine")
    check(not prints(process, 0.3), "it runs")
    client.do("resume")
    m.wait_for(process, b"ready\n")
    client.do("quit")
    m.finish(process).expect(0)


@case("control: reset under --no-reboot ends")
def _(m):
    process = launch(m, "tool", "--no-reboot", cmdline="do=ignore-button")
    ctl(m, "control", "reset")
    m.finish(process).expect(0)


@case("control: a paused machine can be ended")
def _(m):
    for way in ("quit", "SIGINT", "timeout"):
        more = ["--timeout", 1 + 0.3 * m.slack] if way == "timeout" else []
        process = launch(m, "tool", *more, cmdline="do=ignore-button")
        ctl(m, "control", "pause")
        if way == "SIGINT":
            process.send_signal(signal.SIGINT)
        elif way == "quit":
            ctl(m, "control", "quit")
        m.finish(process).expect({"quit": 0, "SIGINT": -signal.SIGINT, "timeout": 124}[way])
        check(not os.path.exists(m.path("control")), f"{way}: the socket is left behind")


@case("control: SIGTERM resumes a paused guest, and a second one ends it")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    client = Client(m)
    client.do("pause")
    process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 10 * m.slack
    while client.do("status")["state"] == "paused":
        check(time.monotonic() < end, "still paused")
        time.sleep(0.01)
    client.do("pause")
    process.send_signal(signal.SIGTERM)
    m.finish(process).expect(-signal.SIGTERM)


@case("control: requests in a row, and two clients")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    one, two = Client(m), Client(m)
    for i in range(200):
        one.ask("status", i)
    for i in range(200):
        two.ask("status", f"two {i}")
    for i in range(200):
        answer = one.answer()
        check(answer["id"] == i and answer["ok"], str(answer))
        answer = two.answer()
        check(answer["id"] == f"two {i}" and answer["ok"], str(answer))
    quit_and_check(m, process)


@case("control: garbage")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    client = Client(m)
    lines = [b"x", b"[" * 60000, b'{"a":' * 10000, b"\xff\xfe", b"\0", b'{"command":"quit","command":"quit"}', b"{}",
             b'{"command":1}', b'{"id":{},"command":"quit"}', b'{"command":"quit","argument":{}}',
             b'{"command":"quit","arguments":{"now":true}}', b" " * 70000, b"a" * 1000000]
    for line in lines:
        client.send(line + b"\n")
        answer = client.answer()
        check(not answer["ok"] and answer["id"] is None and answer["error"], f"{line[:50]!r}: {answer}")
    client.do("status")
    urandom = Client(m)
    urandom.send(os.urandom(100000) + b"\n")
    urandom.close()
    client.do("status")
    quit_and_check(m, process)


@case("control: a client that does not read stops only itself")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    slow, quick = Client(m), Client(m)
    slow.socket.setblocking(False)
    line = b'{"command":"help"}'.ljust(3999) + b"\n"
    sent = 0
    idle_since = None
    while not idle_since or time.monotonic() < idle_since + 0.2 * m.slack:
        try:
            sent += slow.socket.send((line * 10)[sent % len(line):])
            idle_since = None
        except BlockingIOError:
            idle_since = idle_since or time.monotonic()
            quick.do("status")
        check(sent < 100 << 20, "it is read from for ever")
    slow.socket.setblocking(True)
    answers = sum(1 for _ in range(sent // len(line)) if slow.answer()["ok"])
    check(answers == sent // len(line), f"{answers} answers to {sent // len(line)} requests")
    quit_and_check(m, process)


@case("control: 100 connections")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    clients = [Client(m) for _ in range(100)]
    served = 0
    for client in clients:
        try:
            client.ask("status", 1)
        except BrokenPipeError:
            pass
    for client in clients:
        answer = client.answer()
        check(answer["ok"] or answer["error"] == "too many clients", str(answer))
        served += answer["ok"]
    check(served == 64, f"{served} were served")
    for client in clients:
        client.close()
    for _ in range(100):
        client = Client(m)
        client.do("status")
        client.close()
    quit_and_check(m, process)


@case("control: clients that are killed amid a request")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    for tail in (b"", b'{"command":', b'{"command":"stats"}\n' * 100):
        for _ in range(20):
            client = Client(m)
            client.send(b'{"command":"status"}\n' + tail)
            client.close()
    for _ in range(5):
        child = m.start([m.vmm, "ctl", "control", "stats"])
        child.kill()
        child.wait()
    status_of(m)
    quit_and_check(m, process)


@case("control: a client that has said all it wants gets its answers")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    client = Client(m)
    client.send(b'{"id":1,"command":"status"}\n{"id":2,"command":"stats"}\n')
    client.socket.shutdown(socket.SHUT_WR)
    check([client.answer()["id"], client.answer()["id"]] == [1, 2], "answers")
    check(client.file.readline() == b"", "the connection is not closed")
    quit_and_check(m, process)


@case("control: the socket file")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    r = m.run("tool", "--control", "control", "--cmdline", "exit=0").expect(1)
    check(r.err == "vmm: --control control: somebody listens there already\n", str(r))
    status_of(m)
    process.kill()
    process.wait()
    check(os.path.exists(m.path("control")), "who removed it?")
    ctl(m, "control", "status", status=1).expect(1, err="control: nobody listens there\n|without an answer")
    for _ in range(5):
        process = launch(m, "tool", cmdline="do=ignore-button")
        process.kill()
        process.wait()
    quit_and_check(m, launch(m, "tool", cmdline="do=ignore-button"))
    m.file("control", b"text")
    m.run("tool", "--control", "control", "--cmdline", "exit=0").expect(1, err="a file that is no socket is in the way")
    with open(m.path("control"), "rb") as f:
        check(f.read() == b"text", "the file is damaged")
    m.run("tool", "--control", "nowhere/control", "--cmdline", "exit=0").expect(1, err="No such file or directory")
    m.run("tool", "--control", "x" * 200, "--cmdline", "exit=0").expect(1, err="File name too long")


@case("control: the socket file is removed whatever ends the run")
def _(m):
    for cmdline, status in (("exit=5", 5), ("do=triple", 4), ("do=panic", 3), ("do=nothing-known", 17)):
        m.run("tool", "--control", "control", "--cmdline", cmdline).expect(status)
        check(not os.path.exists(m.path("control")), f"{cmdline}: the socket is left behind")
    m.run("no-such-kernel", "--control", "control").expect(1)
    check(not os.path.exists(m.path("control")), "the socket is left behind after a failed start")


def launch_services(m):
    """A guest that serves all integration services, once it does."""
    process = launch(m, "vmbus_ic", "--vmbus", cmdline="test=serve")
    client = Client(m)
    end = time.monotonic() + 20 * m.slack
    while any(s["state"] != "up" for s in client.do("status")["services"].values()):
        check(time.monotonic() < end, "the services do not come up")
        time.sleep(0.02)
    return process, client


@case("control: a paused guest is not asked anything")
def _(m):
    process, client = launch_services(m)
    client.do("pause")
    for command, arguments in (("kvp-get", {"key": "OSName"}), ("kvp-list", {}), ("vss-freeze", {}), ("vss-thaw", {}),
                               ("kvp-set", {"key": "a", "value": "b"}), ("kvp-delete", {"key": "a"}),
                               ("shutdown", {}), ("fcopy", {"from": "/dev/null", "to": "/x"})):
        check(client.error(command, **arguments) == "the machine is paused", command)
    client.do("resume")
    check(client.do("kvp-get", key="OSName") == "freestanding", "OSName")
    client.do("quit")
    m.finish(process).expect(0)


@case("control: answers that come later")
def _(m):
    process, client = launch_services(m)
    for i in range(30):  # more than may be unanswered at once, and others between
        client.ask("kvp-get", f"kvp {i}", key="OSName")
        client.ask("status", f"status {i}")
    answers = [client.answer() for _ in range(60)]
    check(all(a["ok"] for a in answers), str(answers))
    check({a["id"] for a in answers} == {f"{k} {i}" for i in range(30) for k in ("kvp", "status")}, str(answers))
    for _ in range(20):  # and whose client has gone
        gone = Client(m)
        gone.ask("kvp-list", 1)
        gone.ask("kvp-get", 2, key="OSName")
        gone.close()
    client.do("status")
    client.ask("kvp-list", "list")
    client.ask("quit", "quit")  # with an order under way
    check("quit" in [json.loads(line)["id"] for line in client.file], "no answer")
    m.finish(process).expect(0)


@case("control: what needs VMBus says so without it")
def _(m):
    process = launch(m, "tool", cmdline="do=ignore-button")
    client = Client(m)
    check("services" not in client.do("status"), "services without VMBus")
    for command, arguments in (("kvp-get", {"key": "a"}), ("vss-freeze", {}), ("fcopy", {"from": "a", "to": "/b"}),
                               ("shutdown", {"mode": "reboot"})):
        check(client.error(command, **arguments), command)
    check("one of poweroff|reboot|hibernate" in client.error("shutdown", mode="later"), "mode")
    check(client.do("shutdown") == {"by": "power button"}, "by")
    quit_and_check(m, process)


@case("control: what the client refuses")
def _(m):
    for arguments, text in ((["control"], "PATH and COMMAND are missing"), (["control", "status", "x"], "KEY=VALUE"),
                            (["control", "status", "=x"], "KEY=VALUE"), (["--what", "control"], "no such option"),
                            (["control", "a", "x=1", "x=2"], "given twice"), (["none", "status"], "none: No such file"),
                            (["control", "a", "x=\udcff"], "not UTF-8"), (["none", "\udcff"], "No such file"),
                            (["--timeout", "x", "control", "a"], "must be a number"),
                            (["--timeout"], "must be a number")):
        r = m.finish(m.start([m.vmm, "ctl", *arguments])).expect(1, err=text)
        check(r.out == "" and len(r.err.splitlines()) == 1, str(r))
    m.finish(m.start([m.vmm, "ctl", "--help"])).expect(0, out="usage: vmm ctl")


@case("control: a server that says nothing, or nonsense")
def _(m):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(m.path("control"))
        server.listen(8)
        m.finish(m.start([m.vmm, "ctl", "--timeout", "0.3", "control", "status"])).expect(124, err="no answer in time")
        server.accept()[0].close()
        for reply, text in ((b"", "without an answer"), (b"x", "without an answer"), (b"x\n", "none of vmm's"),
                            (b"[]\n", "none of vmm's"), (b'{"ok":true}\n', "none of vmm's"), (b'{"ok":false}\n', "none of vmm's"),
                            (b"x" * (2 << 20), "too long|without an answer")):
            child = m.start([m.vmm, "ctl", "control", "status"])
            peer, _ = server.accept()
            peer.recv(1000)
            try:
                peer.sendall(reply)
            except (BrokenPipeError, ConnectionResetError):
                pass
            peer.close()
            m.finish(child).expect(1, err=text)
