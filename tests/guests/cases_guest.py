# SPDX-License-Identifier: MIT
"""Guests that test the machine from inside."""

import os
import re
import signal
import subprocess
import time

from harness import case, check


def pattern(length):
    return bytes(ord("a") + i % 26 for i in range(length))


def ascending(length):
    return bytes(i & 255 for i in range(length))


def memory_case(size, mib):
    @case(f"boot: memory map with --memory {size}")
    def run(m):
        m.run("boot", "--memory", size, "--cmdline", f"memory={mib}").expect(0)


for text, count in (("32M", 32), ("256M", 256), ("2G", 2048), ("2050M", 2050), ("5G", 5120)):
    memory_case(text, count)


@case("boot: shared memory")
def _(m):
    m.run("boot", "--memory", "3G,shared=on", "--cmdline", "memory=3072").expect(0)


@case("boot: command line, and a seed that differs between runs")
def _(m):
    line = "memory=256 quotes='x' and  spaces"
    first = m.run("boot", "--cmdline", line).expect(0)
    check(f"cmdline '{line}'" in first.out, str(first))
    second = m.run("boot", "--cmdline", line).expect(0)
    seeds = [re.search("seed ([0-9a-f]{64})", r.out).group(1) for r in (first, second)]
    check(seeds[0] != seeds[1], f"the same seed twice: {seeds}")


@case("boot: initrd")
def _(m):
    m.file("initrd", ascending(100001))
    m.run("boot", "--initrd", "initrd", "--cmdline", "initrd=100001").expect(0)


@case("boot: initrd from a pipe")
def _(m):
    m.run("boot", "--initrd", "/dev/stdin", "--serial", "null", "--cmdline", "initrd=70000",
          data=ascending(70000)).expect(0)


@case("boot: kernel from a pipe is refused or works, in one line")
def _(m):
    with open(m.guest("tool"), "rb") as f:
        r = m.run(None, "--kernel", "/dev/stdin", "--cmdline", "exit=5", data=f.read())
    check(r.status == 5 or (r.status == 1 and len(r.err.splitlines()) == 1), str(r))


@case("pvh: entered because the file has no other entry")
def _(m):
    m.file("initrd", ascending(5000))
    m.run("pvh", "--memory", "5G", "--initrd", "initrd", "--cmdline", "memory=5120 initrd=5000").expect(
        0, out="cmdline 'memory=5120 initrd=5000'")


@case("pvh: --boot pvh")
def _(m):
    m.run("pvh", "--boot", "pvh", "--cmdline", "memory=256").expect(0)


@case("uart: registers, loopback, transmit interrupt")
def _(m):
    r = m.run("uart", "--stats", "stats.json").expect(0)
    check(r.out == "".join(c * 15 + "\n" for c in "ABCDEFGH"), str(r))


def receive_case(guest, count):
    @case(f"{guest}: {count} bytes of input by interrupt")
    def run(m):
        process = m.start(m.command(guest, "--cmdline", f"rx={count}"), stdin=subprocess.PIPE)
        m.wait_for(process, b"ready\n")
        m.finish(process, data=pattern(count)).expect(0, out=f"received {count}")


for name in ("uart", "uart_mmio"):
    for length in (1, 7, 16, 17, 1000):
        receive_case(name, length)


@case("uart: input that comes before the guest is ready is not lost")
def _(m):
    m.run("uart", "--cmdline", "early rx=500", data=pattern(500)).expect(0, out="received 500")


@case("uart_mmio: registers and transmit interrupt; reads cost no exit")
def _(m):
    r = m.run("uart_mmio", "--stats", "stats.json").expect(0)
    check(r.out.startswith("0123456789:;<=>\n" * 2), str(r))
    text = "".join("\n" if i % 50 == 49 else chr(ord("a") + i % 26) for i in range(200))
    check(r.out == "0123456789:;<=>\n" * 2 + text, str(r))
    # Over 1000 reads of LSR, and 232 writes of THR; what exits is the writes to other registers.
    accesses = m.stats()["device_accesses"]["uart-mmio"]
    check(accesses < 60, f"{accesses} exits to the port")


@case("uart: few exits for its output")
def _(m):
    r = m.run("stream", "--cmdline", "lines=100", "--stats", "stats.json").expect(0)
    check(len(r.out) == 6400, str(r))
    s = m.stats()
    check(s["user_exits"] <= 6400 / 16 + 20, f"{s['user_exits']} exits for 6400 bytes")
    check(s["coalesced_writes"] == 6400, f"{s['coalesced_writes']} coalesced writes")


@case("timer: PM timer, LAPIC timer, RTC")
def _(m):
    m.run("timer", "--cmdline", f"now={int(time.time())}").expect(0)


@case("timer: the real-time clock in local time")
def _(m):
    for zone, seconds in (("XXX-5:30", 19800), ("XXX8", -28800)):
        m.run("timer", "--rtc", "local", "--cmdline", f"clock-only now={int(time.time()) + seconds}",
              env={**os.environ, "TZ": zone}).expect(0)
    m.run("timer", "--rtc", "utc", "--cmdline", f"clock-only now={int(time.time())}", env={**os.environ, "TZ": "XXX8"}).expect(0)


def smp_case(cpus, mode):
    @case(f"smp: {cpus} CPUs, {mode}")
    def run(m):
        m.run("smp", "--cpus", cpus, "--cmdline", f"cpus={cpus} {mode}").expect(0, out=f"{cpus} processors")


for number in (1, 2, 3, 4, 64):
    for way in ("xapic", "x2apic"):
        smp_case(number, way)


@case("pci: configuration space by ports and ECAM")
def _(m):
    m.run("pci_config", "--device", "pci-test").expect(0)


@case("pci: BARs, INTx, MSI, MSI-X")
def _(m):
    m.run("pci_test", "--device", "pci-test", "--stats", "stats.json").expect(0)
    hits = m.stats()["device_accesses"]
    # Two reads find the BAR gone from where it was; everything else of it is plain memory.
    check("pci-test.bar2" not in hits, f"accesses to a memory BAR exited: {hits}")


@case("pci: BARs above a large memory")
def _(m):
    m.run("pci_test", "--device", "pci-test", "--memory", "5G").expect(0)


@case("acpi: tables and fixed hardware")
def _(m):
    m.run("acpi").expect(0)
    m.run("acpi", "--cpus", 8, "--memory", "5G", "--device", "pci-test").expect(0)


@case("acpi: S5 ends the run with status 0")
def _(m):
    m.run("acpi", "--cmdline", "poweroff").expect(0)


@case("acpi: SIGTERM presses the power button")
def _(m):
    process = m.start(m.command("acpi", "--cmdline", "button poweroff"))
    m.wait_for(process, b"ready\n")
    process.send_signal(signal.SIGTERM)
    m.finish(process).expect(0, out="button\n", err="SIGTERM: asking the guest")


def reset_case(how):
    @case(f"reset: by {how}, a fresh machine each time")
    def run(m):
        r = m.run("reset", "--device", "pci-test", "--cpus", 2, "--stats", "stats.json", "--cmdline",
                  f"how={how} boots=4").expect(0)
        boots = re.findall(r"boot (\d) seed ([0-9a-f]+)\n", r.out)
        check([b[0] for b in boots] == list("1234"), str(r))
        check(len({b[1] for b in boots}) == 4, f"a seed came twice\n{r}")
        check(m.stats()["resets"] == 3, str(m.stats()))


for trigger in ("cf9", "i8042", "port92"):
    reset_case(trigger)


@case("reset: 30 times in a row, 4 CPUs")
def _(m):
    r = m.run("reset", "--device", "pci-test", "--cpus", 4, "--memory", "5G", "--cmdline", "how=cf9 boots=31",
              timeout=40).expect(0)
    check(r.out.count("boot ") == 31, str(r))


@case("unassigned ports and addresses")
def _(m):
    m.run("unassigned").expect(0)


def hostile_case(seed):
    @case(f"hostile: random accesses to every register, seed {seed}")
    def run(m):
        m.run("hostile", "--device", "pci-test", "--cmdline", f"seed={seed} rounds=4000", timeout=30).expect(
            0, out="survived\n$")


for start in range(1, 9):
    hostile_case(start)


@case("hostile: with two CPUs' worth of machine and tracing")
def _(m):
    r = m.run("hostile", "--device", "pci-test", "--cpus", 2, "--trace", "*,file=trace", "--cmdline",
              "seed=99 rounds=1000", timeout=30).expect(0, out="survived\n$")
    with open(m.path("trace"), encoding="latin-1") as f:
        check(len(f.readlines()) > 1000, str(r))
