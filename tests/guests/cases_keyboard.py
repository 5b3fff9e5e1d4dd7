# SPDX-License-Identifier: MIT
"""Keyboard and mouse on VMBus, driven by the control socket."""

from harness import case, check

SHIFT = "2a"


def start(m, test):
    process = m.start(m.command("vmbus_input", "--vmbus", "--control", m.path("socket"), "--cmdline", f"test={test}"))

    def ctl(*words, status=0):
        r = m.finish(m.start([m.vmm, "ctl", m.path("socket"), *words]))
        r.expect(status)
        return r.err

    return process, ctl


def keys_of(out):
    return [line for line in out.split("\n") if line[:1] in ("+", "-")]


@case("vmbus_input: text, chords, pointer")
def _(m):
    process, ctl = start(m, "serve")
    m.wait_for(process, b"ready\n")
    ctl("type", "text=aA\t~ \\", "enter=true")
    ctl("key", "keys=ctrl+alt+delete")
    for words, why in ((("type", "text=\u00e4"), "character 1 is on no key of a US keyboard"),
                       (("type", "text=x\x01"), "character 2 is on no key"),
                       (("type", "text="), "a text has 1 to 4096 characters"),
                       (("type", "text=" + "x" * 4097), "a text has 1 to 4096 characters"),
                       (("key", "keys=ctrl+"), "'ctrl+' names no keys"),
                       (("key", "keys="), "'' names no keys"),
                       (("key", "keys=F1"), "'F1' names no keys"),
                       (("key", "keys=" + "+".join("abcdefghi")), "names no keys"),
                       (("mouse", "x=32768", "y=0"), "x and y are from 0 to 32767"),
                       (("mouse", "x=0", "y=-1"), "x and y are from 0 to 32767")):
        said = ctl(*words, status=1)
        check(why in said, said)
    ctl("key", "keys=" + "+".join("abcdefgh"))
    ctl("mouse", "x=0", "y=32767")
    ctl("mouse", "x=258", "y=3", "click=right")
    ctl("pause")
    said = ctl("type", "text=x", status=1) + ctl("mouse", "x=1", "y=1", status=1)
    check(said.count("the machine is paused") == 2, said)
    ctl("resume")
    ctl("key", "keys=f10")
    r = m.finish(process).expect(0)
    want = ["+1e", "-1e", "+" + SHIFT, "+1e", "-1e", "-" + SHIFT, "+f", "-f", "+" + SHIFT, "+29", "-29", "-" + SHIFT,
            "+39", "-39", "+2b", "-2b", "+1c", "-1c",
            "+1d", "+38", "+e0.53", "-e0.53", "-38", "-1d"]
    eight = ["1e", "30", "2e", "20", "12", "21", "22", "23"]
    want += ["+" + key for key in eight] + ["-" + key for key in reversed(eight)] + ["+44", "-44"]
    check(keys_of(r.out) == want, r.out)
    check([line for line in r.out.split("\n") if line.startswith("at ")] ==
          ["at 0 32767 buttons 0", "at 258 3 buttons 2", "at 258 3 buttons 0"], r.out)


@case("vmbus_input: a guest that has no driver, and one that takes it away")
def _(m):
    process = m.start(m.command("vmbus_ic", "--vmbus", "--control", m.path("socket"), "--cmdline", "test=serve"))
    m.wait_for(process, b"ready\n")
    for words, what in ((("type", "text=x"), "keyboard"), (("key", "keys=f1"), "keyboard"), (("mouse", "x=1", "y=1"), "mouse")):
        r = m.finish(m.start([m.vmm, "ctl", m.path("socket"), *words]))
        r.expect(1)
        check(f"the guest does not use the {what}" in r.err, r.err)
    m.finish(m.start([m.vmm, "ctl", m.path("socket"), "quit"])).expect(0)
    m.finish(process).expect(0)

    process, ctl = start(m, "close")
    m.wait_for(process, b"ready\n")
    said = ctl("type", "text=" + "long " * 200, status=1)
    check("the guest has closed the keyboard" in said, said)
    m.wait_for(process, b"again\n")
    ctl("key", "keys=f10")
    r = m.finish(process).expect(0)
    check(keys_of(r.out) == ["+44", "-44"], r.out)


@case("vmbus_input: one text at a time, and the end in the middle of it")
def _(m):
    process, ctl = start(m, "serve")
    m.wait_for(process, b"ready\n")
    typing = m.start([m.vmm, "ctl", m.path("socket"), "type", "text=" + "x" * 4000])
    m.wait_for(process, b"+2d\n")
    said = ctl("type", "text=y", status=1)
    check("another text is being typed" in said, said)
    ctl("quit")
    m.finish(process).expect(0)
    m.finish(typing).expect(1)


@case("vmbus_input: what no guest should send")
def _(m):
    r = m.run("vmbus_input", "--vmbus", "--control", m.path("socket"), "--cmdline", "test=bad", timeout=30)
    r.expect(0, out="passed\n$")
    check(4 <= len(r.err.splitlines()) <= 20, r.err)


@case("vmbus_input: none without a control socket")
def _(m):
    m.run("vmbus_input", "--vmbus", "--cmdline", "test=serve").expect(17, out="FAIL.*offer")
