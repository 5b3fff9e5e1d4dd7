# SPDX-License-Identifier: MIT
"""VMBus and the integration services, from the guest's side, with each backend of the SynIC that this KVM allows."""

import json
import os
import re
import signal
import time

from cases_hyperv import BACKENDS, backend
from harness import case, check

BUS = ("--vmbus", "--device", "vmbus-test")
LINES_MAX = 110  # what a hostile guest may make us say in a run: BUS_LOG_TOTAL, and little else


def run_case(name, guest, arguments, *options, out="passed\n$", hostile=False, lines=None, timeout=30, backends=BACKENDS):
    most = lines or (LINES_MAX if hostile else 0)

    def register(which):
        @case(f"{guest}: {name}, {which}")
        def run(m):
            r = m.run(guest, *backend(m, which), *BUS, *options, "--cmdline", arguments, timeout=timeout)
            r.expect(0, out=out)
            said = r.err.splitlines()
            check(len(said) <= most, f"{len(said)} lines on stderr\n{r}")
            check(all(len(line) < 200 for line in said), f"a long line on stderr\n{r}")
    for which in backends:
        register(which)


def good(name, test, *options, guest="vmbus", **kwargs):
    run_case(name, guest, f"test={test}", *options, **kwargs)


good("every version, up and down", "versions")
# A refusal is told in a line.
good("versions that nobody has are refused", "refused", hostile=True)
good("features of 6.0", "features")
good("offers, the same at each contact", "offers")
good("4 VPs in turn", "vps cpus=4", "--cpus", 4)
good("a VP that is not there", "bad-vp", hostile=True)
good("messages from one VP", "posts")
good("messages from 4 VPs at once", "posts cpus=4", "--cpus", 4)
good("message slot that stays full", "slot")
good("a guest that posts and does not read", "flood", out="answers were waiting\npassed\n$")
good("by interrupts only", "interrupts")
good("by polling only", "polled")
run_case("by polling only, with an auto-EOI SINT", "vmbus", "test=polled auto-eoi", lines=1)
good("interrupt page of old versions", "interrupt-page")
good("signals by monitor page", "monitor", lines=1)
good("GPADLs of 1 to 8190 pages", "gpadl-sizes")
good("GPADL bodies out of order and missing", "gpadl-order", hostile=True)
good("GPADLs of several ranges", "gpadl-ranges")
good("unload and contact anew", "unload", hostile=True)
good("reboot at each stage", "reboot boots=7", out="boot 6\npassed\n$")

good("open and close 1000 times", "reopen", guest="vmbus_ring")
good("open and close, version 2.4", f"reopen rounds=100 version={0x20004}", guest="vmbus_ring")
good("rings that wrap at every place", "wrap", guest="vmbus_ring")
good("the guest's ring full", "full-out", guest="vmbus_ring")
good("the host's ring full", "full-in", guest="vmbus_ring")
good("the host's ring full, by interrupts", "full-in by-interrupt", guest="vmbus_ring")
good("waiting for room", "pending", guest="vmbus_ring")
good("interrupt mask", "mask", guest="vmbus_ring")
good("one signal for many packets", "batch", guest="vmbus_ring")
good("GPA_DIRECT", "gpa-direct", guest="vmbus_ring")
good("a GPADL in use", "gpadl", guest="vmbus_ring")
good("interrupts move between VPs", "modify cpus=4", "--cpus", 4, guest="vmbus_ring")
good("subchannels", "subchannels cpus=2", "--cpus", 2, guest="vmbus_ring")
good("rescind and hot-add", "rescind", guest="vmbus_ring")
good("a channel that fails and is opened again", "fail", guest="vmbus_ring", hostile=True)
good("rings in memory of which there is one mapping only", "wrap", "--memory", "256M,shared=on", guest="vmbus_ring")
good("rings above 4 GiB of RAM", "wrap", "--memory", "5G", guest="vmbus_ring")


def hostile(name, test, *options, guest="vmbus_hostile", **kwargs):
    run_case(name, guest, f"test={test}", *options, out="survived\n$", hostile=True, **kwargs)


hostile("short and unknown messages", "short")
hostile("posts to nowhere", "post")
hostile("messages without a contact", "no-contact")
hostile("repeated messages", "repeated")
hostile("channels misused", "channel")
hostile("GPADLs that lie", "gpadl")
hostile("GPADLs of what is no RAM, and of one page many times", "gpadl-pages")
hostile("indices that cannot be", "indices", guest="vmbus_hostile_ring")
hostile("packets that cannot be", "packets", guest="vmbus_hostile_ring")
hostile("ranges that cannot be", "ranges", guest="vmbus_hostile_ring")
hostile("rings that change under the reader", "flip cpus=2", "--cpus", 2, guest="vmbus_hostile_ring")
hostile("messages and slots that change under the host", "flip-message cpus=2", "--cpus", 2)
hostile("answers to a VP that never looks", "deaf cpus=2", "--cpus", 2)
for seed in range(1, 5):
    hostile(f"2500 random messages, seed {seed}", f"random rounds=2500 seed={seed}")
hostile("random messages beside those of 3 VPs", "random rounds=1000 seed=5 cpus=4", "--cpus", 4)
hostile("random messages with tracing", "random rounds=500 seed=6", "--trace", "vmbus_*,file=trace")


@case("vmbus: without the test device and without VMBus")
def _(m):
    r = m.run("vmbus", "--device", "vmbus-test", "--cmdline", "test=versions")
    check(r.status == 1 and len(r.err.splitlines()) == 1, str(r))


def traced(which):
    @case(f"vmbus: trace points, {which}")
    def run(m):
        m.run("vmbus", *backend(m, which), *BUS, "--trace", "vmbus_*,file=trace", "--cmdline", "test=gpadl-order").expect(0)
        with open(m.path("trace"), encoding="latin-1") as f:
            text = f.read()
        for name in ("recv_message", "signal_event", "channel_notify_guest", "post_msg", "msg_cb",
                     "process_incoming_message", "initiate_contact", "send_offer", "terminate_offers", "gpadl_header",
                     "gpadl_body", "gpadl_created", "gpadl_teardown", "gpadl_torndown", "open_channel", "channel_open",
                     "close_channel"):
            check(f"vmbus_{name}" in text, f"no vmbus_{name}")
    return run


for kind in BACKENDS:
    traced(kind)


# ---- Integration services ----


def ic_case(name, arguments, *options, hostile=False):
    for which in BACKENDS:
        def run(m, which=which):
            line = f"{arguments} now={int(time.time())}"
            r = m.run("vmbus_ic", *backend(m, which), "--vmbus", *options, "--cmdline", line, timeout=30)
            r.expect(0, out="passed\n$")
            check(len(r.err.splitlines()) <= (200 if hostile else 6), str(r))
        case(f"vmbus_ic: {name}, {which}")(run)


ic_case("negotiation", "test=negotiate")
ic_case("heartbeat", "test=heartbeat")
ic_case("time synchronization", "test=timesync")
ic_case("answers that are none", "test=bad kvp", "--kvp", "a=b", hostile=True)


def serve(m, which, *options):
    """Starts the guest that serves; a process, its socket, and what does a command."""
    process = m.start(m.command("vmbus_ic", *backend(m, which), "--vmbus", *options, "--control", m.path("socket"),
                                "--cmdline", "test=serve"))
    m.wait_for(process, b"ready\n")

    def ctl(*words, status=0):
        r = m.finish(m.start([m.vmm, "ctl", m.path("socket"), *words]))
        return r.expect(status).out

    return process, ctl


def ic_serve(name):
    def register(function):
        for which in BACKENDS:
            def run(m, which=which):
                function(m, which)
            case(f"vmbus_ic: {name}, {which}")(run)
    return register


@ic_serve("SIGTERM shuts the guest down")
def _(m, which):
    process, _ = serve(m, which)
    process.send_signal(signal.SIGTERM)
    m.finish(process).expect(0, out="shutdown flags 0\n$")


@ic_serve("shutdown, with force")
def _(m, which):
    process, ctl = serve(m, which)
    ctl("shutdown", "force=true")
    m.finish(process).expect(0, out="shutdown flags 1\n$")


@ic_serve("restart is asked for")
def _(m, which):
    process, ctl = serve(m, which)
    ctl("shutdown", "mode=reboot")
    m.finish(process).expect(0, out="shutdown flags 2\n$")


@ic_serve("KVP: --kvp, set, get, list, delete")
def _(m, which):
    process, ctl = serve(m, which, "--kvp", "first=1", "--kvp", "second=two words")
    m.wait_for(process, b"set 0 second=two words\n")
    check(ctl("kvp-get", "key=OSName").strip() == "freestanding", "OSName")
    ctl("kvp-set", "key=third", "value=3")
    m.wait_for(process, b"set 0 third=3\n")
    check(ctl("kvp-get", "key=third", "pool=external").strip() == "3", "third")
    listed = json.loads(ctl("kvp-list", "pool=external"))
    check(listed == {"first": "1", "second": "two words", "third": "3"}, str(listed))
    ctl("kvp-delete", "key=first")
    ctl("kvp-delete", "key=first", status=1)
    ctl("kvp-get", "key=first", "pool=external", status=1)
    ctl("kvp-set", "key=" + "k" * 255, "value=" + "v" * 1023)
    ctl("shutdown")
    m.finish(process).expect(0)


@ic_serve("VSS: freeze and thaw")
def _(m, which):
    process, ctl = serve(m, which)
    ctl("vss-freeze")
    ctl("vss-freeze", status=1)
    ctl("vss-thaw")
    ctl("shutdown")
    m.finish(process).expect(0, out="probed\nfrozen\nthawed\nshutdown")


@ic_serve("file copy")
def _(m, which):
    process, ctl = serve(m, which)
    data = os.urandom(20000)
    for number, size in enumerate((0, 1, 6144, 20000)):
        path = m.file(f"file{number}", data[:size])
        ctl("fcopy", f"from={path}", f"to=/tmp/dir/name{number}", "overwrite=true", "create-path=true")
        seen = m.wait_for(process, f"complete {size} sum {sum(data[:size])}\n".encode())
        check(f"file /tmp/dir/name{number} of {size} flags 3\n".encode() in seen, repr(seen))
    ctl("fcopy", f"from={m.path('absent')}", "to=/tmp/x", status=1)
    ctl("shutdown")
    m.finish(process).expect(0)


@ic_serve("status")
def _(m, which):
    process, ctl = serve(m, which)
    services = json.loads(ctl("status"))["services"]
    check(all(services[s]["state"] == "up" for s in ("heartbeat", "shutdown", "timesync", "kvp", "vss", "fcopy")),
          str(services))
    check(services["heartbeat"]["version"] == "3.0", str(services))
    check(re.fullmatch("up|down", services["heartbeat"]["heartbeat"]), str(services))
    ctl("shutdown")
    m.finish(process).expect(0)
