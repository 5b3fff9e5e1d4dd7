# SPDX-License-Identifier: MIT
"""How runs end, and what they leave: status, statistics, traces."""

import os
import signal
import time

from harness import GUEST_FAILED, Skip, case, check


@case("debug exit: the status is the byte written")
def _(m):
    for status in (0, 1, 2, 3, 4, 17, 77, 124, 127, 128, 200, 254, 255):
        m.run("tool", "--cmdline", f"exit={status}").expect(status)


@case("debug exit: wider writes")
def _(m):
    for width in (2, 4):
        m.run("tool", "--cmdline", f"exit=99 width={width}").expect(99)


@case("debug exit: what was printed before is there")
def _(m):
    r = m.run("stream", "--cmdline", "lines=300").expect(0)
    check(len(r.out) == 300 * 64 and r.out.startswith("00000000") and "\n00000299" in r.out, str(r))


@case("a failed check ends with the guest's own status")
def _(m):
    m.run("tool", "--cmdline", "do=nothing-known").expect(GUEST_FAILED, out="FAIL tool.c:")


@case("an exception the guest handles is its own affair")
def _(m):
    m.run("tool", "--cmdline", "do=exception").expect(GUEST_FAILED, out="FAIL exception 6")


@case("POST codes: recorded in order with times")
def _(m):
    m.run("tool", "--cmdline", "post=5 exit=0", "--stats", "stats.json").expect(0)
    s = m.stats()
    check([p["code"] for p in s["post"]] == [1, 2, 3, 4, 5], str(s["post"]))
    times = [s["time"]["first_run_ms"]] + [p["ms"] for p in s["post"]] + [s["time"]["end_ms"]]
    check(times == sorted(times) and times[0] > 0, str(times))


@case("POST codes: more than are kept are counted")
def _(m):
    m.run("tool", "--cmdline", "post=200 exit=0", "--stats", "stats.json").expect(0)
    s = m.stats()
    check(s["post_codes"] == 200 and len(s["post"]) == 64, str(s["post_codes"]))
    check([p["code"] for p in s["post"]] == list(range(1, 65)), str(s["post"]))


@case("stats: written for every way to end, with the status")
def _(m):
    for arguments, status in ((["--cmdline", "exit=42"], 42), (["--cmdline", "do=panic"], 3),
                              (["--cmdline", "do=triple"], 4), (["--cmdline", "do=hlt", "--timeout", "0.2"], 124)):
        m.run("tool", "--stats", "stats.json", *arguments).expect(status)
        s = m.stats()
        check(s["status"] == status, str(s))
        check(s["time"]["end_ms"] >= s["time"]["first_run_ms"] > 0, str(s))
        check(s["user_exits"] == sum(sum(v["exits"].values()) for v in s["vcpus"]), str(s))
        os.unlink(m.path("stats.json"))


@case("pvpanic: status 3")
def _(m):
    m.run("tool", "--cmdline", "do=panic").expect(3, err="the guest panicked")


@case("pvpanic: a crash kernel may go on")
def _(m):
    m.run("tool", "--cmdline", "do=crash-kernel").expect(33, out="still here", err="crash kernel")


@case("timeout: status 124 for a halted guest")
def _(m):
    r = m.run("tool", "--cmdline", "do=hlt", "--timeout", "0.5").expect(124, err=r"--timeout: .* 0\.5 s")
    check(0.5 <= r.seconds < 0.5 + 1.5 * m.slack, str(r))


@case("timeout: status 124 for a guest that spins on every CPU")
def _(m):
    m.run("tool", "--cpus", 4, "--cmdline", "do=spin", "--timeout", "0.3").expect(124)


@case("timeout: not for a run that ends before")
def _(m):
    m.run("tool", "--cmdline", "exit=7", "--timeout", "30").expect(7)


REGISTERS = r"rip [0-9a-f]{16} cs .*rax [0-9a-f]{16}.*cr0 "


@case("triple fault: status 4 and the registers")
def _(m):
    r = m.run("tool", "--cmdline", "do=triple").expect(4, err="triple fault.*" + REGISTERS)
    check("rax 1122334455667788" in r.err and "code at rip: 0f 0b" in r.err, str(r))


def crash_case(action, text):
    @case(f"crash: {action}")
    def run(m):
        m.run("tool", "--cmdline", f"do={action}").expect(4, err=text + ".*" + REGISTERS)


crash_case("jump-unmapped", "triple fault")
crash_case("jump-nowhere", "KVM internal error|triple fault")
crash_case("jump-garbage", "triple fault")
crash_case("no-stack", "triple fault")


@case("--no-reboot: a reset ends with status 0")
def _(m):
    m.run("tool", "--no-reboot", "--cmdline", "do=reset").expect(0)


@case("SIGTERM: a guest that ignores the button is ended by a second one")
def _(m):
    process = m.start(m.command("tool", "--cmdline", "do=ignore-button"))
    m.wait_for(process, b"ready\n")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    check(process.poll() is None, "the first SIGTERM ended it")
    process.send_signal(signal.SIGTERM)
    m.finish(process).expect(-signal.SIGTERM)


def signal_case(number):
    @case(f"{number.name}: ends at once, by the signal")
    def run(m):
        process = m.start(m.command("tool", "--cmdline", "do=ignore-button", "--stats", "stats.json"))
        m.wait_for(process, b"ready\n")
        process.send_signal(number)
        r = m.finish(process).expect(-number)
        check(r.err.count("\n") == 0, str(r))
        check(m.stats()["vcpus"], "no statistics")


for sig in (signal.SIGINT, signal.SIGHUP):
    signal_case(sig)


@case("trace: matching points go to a file, others do not")
def _(m):
    m.run("tool", "--cmdline", "post=3 exit=0", "--trace", "p[oi]*,file=trace").expect(0)
    with open(m.path("trace"), encoding="latin-1") as f:
        lines = f.read().splitlines()
    check(sum("post_code code 0x" in line for line in lines) == 3, "\n".join(lines))
    check(any("pio_write debug-exit port 0xf4 size 1 value 0x0" in line for line in lines), "\n".join(lines))
    check(not any("vcpu_exit" in line for line in lines), "\n".join(lines))


@case("trace: on standard error by default")
def _(m):
    m.run("tool", "--cmdline", "exit=0", "--trace", "vm_event").expect(0, err=r"vm_event exit status 0\n")


@case("trace: several patterns")
def _(m):
    r = m.run("tool", "--cmdline", "post=1 exit=0", "--trace", "vm_event", "--trace", "post_code").expect(0)
    check("post_code" in r.err and "vm_event" in r.err, str(r))


@case("trace: help lists the points")
def _(m):
    r = m.run(None, "--trace", "help").expect(0, out="vcpu_exit\n")
    check(len(r.out.splitlines()) > 10, str(r))


@case("256 CPUs are too many, 254 boot")
def _(m):
    m.run("tool", "--cpus", 254, "--cmdline", "exit=6").expect(6)
    m.run("tool", "--cpus", 255, "--cmdline", "exit=6").expect(1)


@case("no descriptor of vmm's own is inherited from standard ones that are closed")
def _(m):
    command = " ".join(m.command("stream", "--cmdline", "lines=3"))
    for closed in (">&-", "<&-", ">&- <&-", ">&- <&- 2>&-"):
        r = m.finish(m.start(["sh", "-c", f"exec {command} {closed}"]))
        r.expect(0)
        check(r.err == "", str(r))


@case("memory: as much as the address space allows is only reserved")
def _(m):
    r = m.run("tool", "--memory", "1T", "--cmdline", "exit=8")
    if r.status == 1 and len(r.err.splitlines()) == 1:
        raise Skip(f"this host does not overcommit: {r.err.strip()}")
    r.expect(8)
