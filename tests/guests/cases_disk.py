# SPDX-License-Identifier: MIT
"""--disk: the storage controller from the guest's side, images, and what is wrong with them."""

import os
import subprocess

from cases_hyperv import BACKENDS, backend
from harness import Skip, case, check

MIB = 1 << 20
WHICH = BACKENDS[:1]  # the SynIC makes no difference to a disk but for one case of each backend


def image(m, name="disk.img", size=8 * MIB):
    with open(m.path(name), "wb") as f:
        f.truncate(size)
    return m.path(name)


def run(m, which, arguments, *options, lines=0, timeout=40):
    r = m.run("storvsp", *backend(m, which), "--vmbus", *options, "--cmdline", arguments, timeout=timeout)
    r.expect(0, out="passed\n$")
    check(len(r.err.splitlines()) <= lines, f"unexpected lines on stderr\n{r}")
    return r


def disk_case(name, test, *options, backends=WHICH, keys=("", ",direct=off"), lines=0, size=8 * MIB):
    for which in backends:
        for key in keys:
            def body(m, which=which, key=key):
                blocks = size // 512
                run(m, which, f"test={test} blocks={blocks}", "--disk", image(m, size=size) + key, *options, lines=lines)
            case(f"disk: {name}{key}, {which}")(body)


disk_case("protocol versions", "versions", backends=BACKENDS, keys=("",))
disk_case("transfers of 512 bytes to 2 MiB at any address", "sizes")
disk_case("hundreds of requests at once", "many", backends=BACKENDS)
disk_case("answers that find the ring full", "full", keys=("",))
disk_case("subchannels", "subchannels cpus=4", "--cpus", 4, keys=("",), backends=BACKENDS)
disk_case("UNMAP and WRITE SAME", "unmap")
disk_case("open and close with requests under way", "reopen", lines=40)
disk_case("resets with requests under way", "reboot boots=4", keys=("", ",direct=off"))
disk_case("bus resets", "reset-bus", keys=("",))
disk_case("read-only", "readonly", keys=(",readonly=on",))
disk_case("requests that cannot be", "bad-requests")
disk_case("packets that cannot be", "bad-packets", keys=("",), lines=60)
disk_case("rings that break under requests", "bad-ring", lines=60)
disk_case("requests out of order", "order", keys=("",))
disk_case("buffers above 4 GiB of RAM", "sizes", "--memory", "5G", keys=("",))
disk_case("shared memory", "many", "--memory", "256M,shared=on", keys=("",))


def units(count):
    @case(f"disk: {count} units")
    def _(m):
        options = []
        for i in range(count):
            options += ["--disk", image(m, f"disk{i}.img", 64 * 512 + 512 * i)]
        run(m, WHICH[0], f"test=units luns={count} blocks=64", *options)
        with open(m.path(f"disk{count - 1}.img"), "rb") as f:
            f.seek(512 * (count - 1))
            check(f.read(8) == (1000 + count - 1).to_bytes(8, "little"), "the block is not in the image")


for number in (1, 2, 64, 255):
    units(number)


@case("disk: UNMAP gives blocks back")
def _(m):
    path = image(m)
    with open(path, "r+b") as f:
        f.write(b"x" * 8 * MIB)
    before = os.stat(path).st_blocks
    run(m, WHICH[0], "test=unmap", "--disk", path)
    after = os.stat(path).st_blocks
    check(after <= before - 1024 + 16, f"{before} blocks before, {after} after")


@case("disk: a DVD")
def _(m):
    data = bytearray(100 * 2048)
    data[16 * 2048 + 1:16 * 2048 + 6] = b"CD001"
    run(m, WHICH[0], "test=dvd", "--disk", m.file("medium.ISO", bytes(data)))


@case("disk: the host has no more room")
def _(m):
    os.mkdir(m.path("small"))
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", m.path("small")], capture_output=True,
                       check=False)
    if r.returncode:
        raise Skip("no right to mount a file system")
    try:
        run(m, WHICH[0], f"test=no-space blocks={16 * MIB // 512}", "--disk", image(m, "small/disk.img", 16 * MIB))
    finally:
        subprocess.run(["umount", "-l", m.path("small")], check=False)


def refused(name, text, *, content=None, disks=("disk.img",), more=()):
    @case(f"disk: {name} is refused")
    def _(m):
        if content is not None:
            m.file("disk.img", content)
        options = [o for d in disks for o in ("--disk", d)]
        r = m.run("storvsp", "--vmbus", *options, *more)
        r.expect(1, err=text)
        check(len(r.err.splitlines()) == 1, str(r))


refused("an absent file", "--disk disk.img: open: No such file or directory")
refused("an empty file", "--disk disk.img: is empty; a disk is made with", content=b"")
refused("a qcow2 image", "this is a qcow2 image.*qemu-img convert -f qcow2 -O raw disk.img NEW.img",
        content=b"QFI\xfb" + bytes(1020))
refused("a vhdx image", "this is a vhdx image", content=b"vhdxfile" + bytes(1016))
refused("a vmdk image", "this is a vmdk image", content=b"KDMV" + bytes(1020))
refused("a directory", "--disk /tmp:", disks=("/tmp",))
refused("a character device", "neither a file nor a block device", disks=("/dev/null,direct=off",))
refused("an image twice", "in use by another process", content=bytes(4096), disks=("disk.img", "disk.img"))
refused("an unknown key", "--disk: 'size=3' is none of readonly=, boot=, direct=, serial=", disks=("disk.img,size=3",))
refused("a serial number twice", "another disk has the serial number A", content=bytes(4096),
        disks=("disk.img,readonly=on,serial=A", "disk.img,readonly=on,serial=A"))
refused("the 256th disk", "--disk: given more than 255 times", disks=("disk.img",) * 256)


@case("disk: an image is one machine's")
def _(m):
    path = image(m)
    first = m.start(m.command("storvsp", "--vmbus", "--disk", path, "--cmdline", "test=hold"))
    m.wait_for(first, b"holding\n")
    r = m.run("storvsp", "--vmbus", "--disk", path, "--cmdline", "test=versions")
    r.expect(1, err="in use by another process, or another --disk: only a readonly=on disk can be shared")
    r = m.run("storvsp", "--vmbus", "--disk", path + ",readonly=on", "--cmdline", "test=versions")
    r.expect(1, err="in use by another process, or another --disk that writes to it")
    check(first.poll() is None, "the first one has ended")
