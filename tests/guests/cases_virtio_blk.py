# SPDX-License-Identifier: MIT
"""--disk without VMBus, and boot=on with it: virtio-blk from the guest's side."""

import os

from cases_disk import MIB, image
from cases_hyperv import BACKENDS, backend
from harness import case, check


def run(m, arguments, *options, lines=0, timeout=40):
    r = m.run("virtio_blk", *options, "--cmdline", arguments, timeout=timeout)
    r.expect(0, out="passed\n$")
    check(len(r.err.splitlines()) <= lines, f"unexpected lines on stderr\n{r}")
    return r


def virtio_case(name, test, *options, keys=("", ",direct=off"), lines=0, size=8 * MIB):
    for key in keys:
        def body(m, key=key):
            run(m, f"test={test} blocks={size // 512}", "--disk", image(m, size=size) + key, *options, lines=lines)
        case(f"virtio-blk: {name}{key}")(body)


virtio_case("configuration, features, serial number", "facts", keys=(",serial=serial-number",))
virtio_case("transfers of 512 bytes to 1 MiB at any address", "sizes")
virtio_case("requests in many parts", "parts")
virtio_case("a ring full of requests at once", "many")
virtio_case("discard, and zeroes", "zeroes", keys=("",))
virtio_case("read-only", "readonly", keys=(",readonly=on",))
virtio_case("resets of device and queue with requests under way", "reset")
virtio_case("resets with requests under way", "reboot boots=4")
virtio_case("requests that cannot be", "bad-requests")
virtio_case("rings that break", "bad-rings", keys=("",), lines=1)
virtio_case("more requests than the ring has", "greedy", keys=("",), lines=2)
virtio_case("MSI-X switched while there is an interrupt", "msix-switched", keys=("",))
virtio_case("registers written without a status", "early-enable", keys=("",))
virtio_case("a ring that is no memory, again and again", "broken-again", keys=("",), lines=1)
virtio_case("a ring full of requests, shared memory", "many", "--memory", "256M,shared=on", keys=("",))


@case("virtio-blk: a DVD")
def _(m):
    data = bytearray(100 * 2048)
    data[16 * 2048 + 1:16 * 2048 + 6] = b"CD001"
    run(m, "test=dvd", "--disk", m.file("medium.iso", bytes(data)))


@case("virtio-blk: discard gives blocks back")
def _(m):
    path = image(m)
    with open(path, "r+b") as f:
        f.write(b"x" * 8 * MIB)
    before = os.stat(path).st_blocks
    run(m, f"test=zeroes blocks={8 * MIB // 512}", "--disk", path)
    after = os.stat(path).st_blocks
    check(after <= before - 128 + 16, f"{before} blocks before, {after} after")


def owners(which):
    @case(f"virtio-blk: one disk for firmware and system, {which}")
    def _(m):
        other = image(m, "other.img", MIB)
        r = run(m, "test=owners", *backend(m, which), "--vmbus", "--disk", image(m) + ",boot=on", "--disk", other)
        check("boot 4\n" in r.out, str(r))


for backend_name in BACKENDS:
    owners(backend_name)


@case("virtio-blk: with VMBus a disk without boot=on is not there")
def _(m):
    r = m.run("virtio_blk", "--vmbus", "--disk", image(m), "--cmdline", "test=facts")
    r.expect(17, out="devfn")


@case("virtio-blk: more disks than the bus has room for")
def _(m):
    options = []
    for i in range(40):
        options += ["--disk", image(m, f"{i}.img", 4096)]
    r = m.run("virtio_blk", *options)
    r.expect(1, err=r"--disk .*\.img: no room on the PCI bus: with --vmbus there may be 255 disks")
    check(len(r.err.splitlines()) == 1, str(r))
