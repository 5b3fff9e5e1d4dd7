# SPDX-License-Identifier: MIT
"""Hyper-V: the partition and its SynIC, with each backend that this KVM allows."""

import fcntl
import os
import re

from harness import Skip, case, check

BACKENDS = ("user", "kvm")


def backend(m, name):
    """Options for this backend; Skip if KVM cannot have it."""
    r = m.run("tool", "--hyperv", f"synic={name}", "--cmdline", "exit=0")
    if r.status == 1 and len(r.err.splitlines()) == 1 and "this KVM has no" in r.err:
        raise Skip(r.err.strip())
    r.expect(0)
    return ["--hyperv", f"synic={name}"]


def clock_is_tsc():
    """Only a host that trusts its TSC can give one to the guest."""
    try:
        with open("/sys/devices/system/clocksource/clocksource0/current_clocksource", encoding="ascii") as f:
            return f.read().strip() == "tsc"
    except OSError:
        return False


def kvm_has_hyperv():
    """Whether KVM has an emulation of its own (CONFIG_KVM_HYPERV)."""
    check_extension, sys_hyperv_cpuid = 0xae03, 191  # <linux/kvm.h>
    try:
        with open("/dev/kvm", "rb") as kvm:
            return fcntl.ioctl(kvm, check_extension, sys_hyperv_cpuid) > 0
    except OSError:
        return False


def hv_case(name, guest, arguments, *options, cmdline=None, out=None, err=None, status=0, backends=BACKENDS, timeout=30):
    """One case for each backend; cmdline adds what differs between them."""
    def register(which):
        @case(f"hyperv: {name}, {which}")
        def run(m):
            more = (cmdline or {}).get(which, "")
            r = m.run(guest, *backend(m, which), *options, "--cmdline", f"{arguments} {more}".strip(), timeout=timeout)
            r.expect(status, out=out, err=err)
            check(status or not r.err or "auto" in r.err or "end of interrupt" in r.err, str(r))
    for which in backends:
        register(which)


TEST = ("--device", "hv-test")

# What the user backend offers does not depend on KVM (docs/hyperv.md), but for the registers of the APIC.
APIC = 0x10 if kvm_has_hyperv() else 0
hv_case("CPUID", "hyperv", "test=cpuid cpus=3", "--cpus", 3,
        cmdline={"user": f"eax={0xae7 | APIC} ebx={0x30} edx={0x500} hints={0x220}"})
hv_case("MSRs read, write and fault as CPUID says", "hyperv", "test=msrs")
# A processor that delivers interrupts by itself ends them by itself, too. The one that is emulated does not.
hv_case("APIC registers and VP assist page", "hyperv", "test=apic", "--cpus", 2,
        out="no APIC registers" if not APIC else "[1-9][0-9]* EOIs saved" if os.environ.get("VMM_EMULATED_HOST") else
        "EOIs saved")
hv_case("VP indices", "hyperv", "test=vps cpus=4", "--cpus", 4)
hv_case("reference counter, TSC page and frequencies", "hyperv", "test=time",
        cmdline=dict.fromkeys(BACKENDS, "" if clock_is_tsc() else "page-may-be-invalid"), out="page compared")
hv_case("hypercall statuses", "hyperv", "test=hypercalls", *TEST)
hv_case("hypercalls of 32-bit code", "hyperv", "test=code32", *TEST)
hv_case("crash registers", "hyperv", "test=crash", status=3,
        err="crashed: parameters 0x1000 0x1001 0x1002 0x1003 0x1004\n$")
hv_case("crash registers with a text", "hyperv", "test=crash message", status=3,
        err='parameters 0x1000 .*Kernel panic: out of "coffee"\n.*[^\x1b]<6>second line\n$')
hv_case("crash text that is not in RAM", "hyperv", "test=crash message outside=1000", status=3, err="parameters 0x1000")
hv_case("crash text that is too long", "hyperv", f"test=crash message length={2 ** 63}", status=3, err="second line")
hv_case("gates: SCONTROL, SIMP, SINT", "hyperv_synic", "test=gates", *TEST)
hv_case("payloads and targets", "hyperv_synic", "test=payloads", *TEST)
hv_case("burst by interrupts", "hyperv_synic", "test=burst count=500", *TEST, out="500 messages, [1-9]")
hv_case("two SINTs", "hyperv_synic", "test=two-sints", *TEST)
hv_case("burst polled, interrupts off", "hyperv_synic", "test=polled count=500", *TEST)
hv_case("burst polled, auto-EOI", "hyperv_synic", "test=polled auto-eoi count=200", *TEST)
hv_case("burst polled, APIC off", "hyperv_synic", "test=polled no-apic count=200", *TEST)
hv_case("slow reader and its EOMs", "hyperv_synic", "test=slow", *TEST)
hv_case("message page that moves", "hyperv_synic", "test=move-page", *TEST)
hv_case("4 VPs post to each other", "hyperv_synic", "test=vps cpus=4 count=200", "--cpus", 4, *TEST)
hv_case("3 VPs post to one", "hyperv_synic", "test=flood cpus=4 count=200", "--cpus", 4, *TEST)
hv_case("halted VP is woken", "hyperv_synic", "test=sleeper cpus=2", "--cpus", 2, *TEST)
hv_case("all event flags", "hyperv_synic", "test=flags", *TEST)
hv_case("event flags interrupt on their edge", "hyperv_synic", "test=edges", *TEST)
hv_case("gates of events", "hyperv_synic", "test=event-gates", *TEST)
hv_case("events to 3 VPs", "hyperv_synic", "test=events-to-vps cpus=4", "--cpus", 4, *TEST)
for synic in BACKENDS:
    TIMERS = ("--hyperv", f"synic={synic},timers=on", *TEST)
    hv_case("synthetic timers beside messages", "hyperv_synic", "test=stimer", *TIMERS, out="[0-9]+ timer messages",
            backends=(synic,))
    hv_case("synthetic timers: messages", "hyperv_synic", "test=stimer-messages", *TIMERS, backends=(synic,))
    hv_case("synthetic timers: interrupts", "hyperv_synic", "test=stimer-direct", *TIMERS, out="300 waits",
            backends=(synic,))
    hv_case("synthetic timers: not offered", "hyperv_synic", "test=stimer", "--hyperv", f"synic={synic},timers=off", *TEST,
            out="no synthetic timers", backends=(synic,))
hv_case("CPUID with timers", "hyperv", "test=cpuid", "--hyperv", "synic=user,timers=on",
        cmdline={"user": f"eax={0xaef | APIC} ebx={0x30} edx={0x80500} hints={0x220}"}, backends=("user",))
hv_case("MSRs with timers", "hyperv", "test=msrs", "--hyperv", "synic=user,timers=on", backends=("user",))
hv_case("hostile storm with timers", "hyperv_hostile", "test=storm seed=5 rounds=2000", "--hyperv", "synic=user,timers=on", *TEST,
        out="survived", backends=("user",))
hv_case("round trips", "hyperv_synic", "test=round-trip count=100", *TEST, out="doorbell: average.*signal, polled: average")

for start in range(1, 5):
    hv_case(f"hostile storm {start}", "hyperv_hostile", f"test=storm seed={start} rounds=2000", *TEST, out="survived")
hv_case("hostile: pages that overlap", "hyperv_hostile", "test=overlap", *TEST, out="survived")
hv_case("hostile: pages outside of RAM", "hyperv_hostile", "test=outside", *TEST, out="survived")
hv_case("hostile: slots scribbled over", "hyperv_hostile", "test=scribble", "--cpus", 2, *TEST, out="survived")
hv_case("hostile: hypercall from ring 3", "hyperv_hostile", "test=ring3", *TEST, out="survived")


def crash_case(which):
    @case(f"hyperv: a bug check of Windows, {which}")
    def run(m):
        m.run("hyperv", *backend(m, which), "--cmdline", "test=crash windows").expect(
            3, err="crashed: bug check 0x1000, parameters 0x1001 0x1002 0x1003 0x1004\n$")


# What KVM does by itself depends on a parameter of its module; without --hyperv there is no backend.
MSR_LINES = {
    "fault": ("--msr fault: the guest reads MSR 0x12345000, which is unknown: #GP",
              "--msr fault: the guest writes 0x1122334455667788 to MSR 0x12344fff, which is unknown: #GP"),
    "ignore": ("--msr ignore: the guest reads MSR 0x12345000, which is unknown: 0",
               "--msr ignore: the guest writes 0x1122334455667788 to MSR 0x12344fff, which is unknown: dropped"),
}


def kvm_ignores_msrs():
    try:
        with open("/sys/module/kvm/parameters/ignore_msrs", encoding="ascii") as f:
            return f.read().strip() == "Y"
    except OSError:
        return False


def msr_case(which, policy):
    @case(f"msr: unknown ones, --msr {policy}, {which}")
    def run(m):
        if kvm_ignores_msrs():
            raise Skip("this KVM ignores them itself (kvm.ignore_msrs)")
        options = [] if which == "no Hyper-V" else backend(m, which)
        line = f"policy={policy}" + (" hyperv" if options else "")
        r = m.run("msr", *options, "--msr", policy, "--cmdline", line).expect(0)
        check(r.err.splitlines() == [f"vmm: {text}" for text in MSR_LINES[policy]], str(r))
        # As many lines as there is room for, and one that says so.
        lines = m.run("msr", *options, "--msr", policy, "--cmdline", f"{line} walk=300").expect(0).err.splitlines()
        check(len(lines) == 33 and lines[-1].endswith("uses more than 32 unknown MSRs; no more are told"), str(lines))


for where in ("no Hyper-V", *BACKENDS):
    for what in MSR_LINES:
        msr_case(where, what)


@case("msr: without the option nothing is told")
def _(m):
    if kvm_ignores_msrs():
        raise Skip("this KVM ignores them itself (kvm.ignore_msrs)")
    r = m.run("msr", "--cmdline", "policy=fault").expect(0)
    check(not r.err, str(r))


def reset_case(which, timers=""):
    @case(f"hyperv: reset, a fresh partition each time, {which}{timers}")
    def run(m):
        backend(m, which)
        r = m.run("hyperv", "--hyperv", f"synic={which}{timers}", *TEST, "--cpus", 2, "--stats", "stats.json", "--cmdline",
                  "test=reset boots=4", timeout=30).expect(0)
        check(re.findall(r"boot (\d)\n", r.out) == list("1234"), str(r))
        check(m.stats()["resets"] == 3, str(m.stats()))


for kind in BACKENDS:
    reset_case(kind)
    crash_case(kind)
reset_case("user", ",timers=on")


@case("hyperv: without the option there is none of it")
def _(m):
    m.run("hyperv", "--cmdline", "test=none").expect(0)
    r = m.run("hyperv", "--device", "hv-test", "--cmdline", "test=none").expect(1, err="--device hv-test: needs")
    check(len(r.err.splitlines()) == 1, str(r))


@case("hyperv: a crash with 4 VPs running, user")
def _(m):
    m.run("hyperv", "--hyperv", "synic=user", "--cpus", 4, "--cmdline", "test=crash message").expect(3, err="second line")
