# SPDX-License-Identifier: MIT
"""Wrong options, files and hosts: one clear line, status 1, no crash."""

import gzip
import os
import random
import shutil
import struct
import subprocess

from harness import Skip, case, check


def refused(m, arguments, text, guest=None):
    r = m.run(guest, *arguments)
    r.expect(1, err=text)
    check(r.out == "" and r.err.startswith("vmm: ") and len(r.err.splitlines()) == 1, f"not one line\n{r}")


OPTIONS = {
    "nothing at all": ([], "--kernel FILE is missing"),
    "an unknown option": (["--bogus"], "--bogus: no such option"),
    "no option": (["kernel"], "'kernel' is not an option"),
    "one dash": (["-kernel"], "'-kernel' is not an option"),
    "no value": (["--kernel"], "--kernel needs a value"),
    "an empty value": (["--kernel="], "--kernel: the value is empty"),
    "a value too many": (["--no-reboot=1"], "--no-reboot takes no value"),
    "cpus 0": (["--cpus", "0"], "--cpus 0: "),
    "cpus 255": (["--cpus", "255"], "--cpus 255: .* 1 to 254"),
    "cpus -1": (["--cpus", "-1"], "--cpus -1: "),
    "cpus words": (["--cpus", "4x"], "--cpus 4x: "),
    "cpus huge": (["--cpus", "99999999999999999999"], "--cpus 9+: "),
    "memory 16M": (["--memory", "16M"], "--memory 16M: .* 32M"),
    "memory 33M": (["--memory", "33M"], "--memory 33M: .* multiple of 2M"),
    "memory 5T": (["--memory", "5T"], "--memory 5T: "),
    "memory overflow": (["--memory", "18446744073709551615G"], "--memory .*: not a size"),
    "memory words": (["--memory", "1Q"], "--memory 1Q: not a size"),
    "memory negative": (["--memory", "-256M"], "--memory -256M: not a size"),
    "memory keys": (["--memory", "256M,pages=huge"], "pages=huge"),
    "serial": (["--serial", "tty"], "--serial tty: must be"),
    "serial file": (["--serial", "file:"], "--serial file:: must be"),
    "boot": (["--boot", "fast"], "--boot fast: must be"),
    "msr": (["--msr", "drop"], "--msr drop: must be ignore or fault"),
    "rtc": (["--rtc", "gmt"], "--rtc gmt: must be utc or local"),
    "timeout 0": (["--timeout", "0"], "--timeout 0: "),
    "timeout -1": (["--timeout", "-1"], "--timeout -1: "),
    "timeout words": (["--timeout", "1m"], "--timeout 1m: "),
    "timeout nan": (["--timeout", "nan"], "--timeout nan: "),
    "timeout huge": (["--timeout", "1e300"], "--timeout 1e300: "),
    "device": (["--device", "floppy"], "--device floppy: "),
    "cmdline": (["--cmdline", "x" * 65536], "--cmdline: longer than 65535"),
    "traces": (["--trace", "vm_event"] * 17, "--trace: given more than 16"),
}


def option_case(name, arguments, text):
    @case(f"bad option: {name}")
    def run(m):
        refused(m, arguments, text)


for label, (given, expected) in OPTIONS.items():
    option_case(label, given, expected)


@case("bad option: a trace point that does not exist")
def _(m):
    refused(m, ["--trace", "nothing*", "--cmdline", "exit=0"], "--trace nothing.*no trace point", "tool")


@case("bad option: a trace file that cannot be written")
def _(m):
    refused(m, ["--trace", "*,file=/nowhere/x", "--cmdline", "exit=0"], "--trace .*: /nowhere/x: No such file", "tool")


@case("bad option: a command line longer than the kernel takes")
def _(m):
    refused(m, ["--cmdline", "x" * 3000], "--cmdline: 3000 bytes", "tool")


def bzimage(length, **fields):
    """A boot sector and setup header (Documentation/arch/x86/boot.rst), then zeroes."""
    header = bytearray(length)
    values = {0x1f1: ("<B", 4), 0x1f4: ("<I", 0x10000), 0x1fe: ("<H", 0xaa55), 0x202: ("<4s", b"HdrS"),
              0x206: ("<H", 0x20f), 0x211: ("<B", 1), 0x230: ("<I", 0x200000), 0x234: ("<B", 1), 0x235: ("<B", 21),
              0x236: ("<H", 3), 0x248: ("<I", 0x100), 0x24c: ("<I", 0x1000), 0x258: ("<Q", 0x1000000),
              0x260: ("<I", 0x2000000)}
    for at, (form, value) in values.items():
        if at + struct.calcsize(form) <= length:
            struct.pack_into(form, header, at, fields.get(hex(at), value))
    return bytes(header)


def elf(m, **changes):
    with open(m.guest("tool"), "rb") as f:
        data = bytearray(f.read())
    for at, value in changes.items():
        at = int(at[1:], 16)
        data[at:at + len(value)] = value
    return bytes(data)


KERNELS = {
    "empty": (lambda m: b"", "empty"),
    "one byte": (lambda m: b"\x7f", "."),
    "text": (lambda m: b"#!/bin/sh\necho hello\n" * 100, "."),
    "zeroes": (lambda m: bytes(100000), "."),
    "gzip": (lambda m: gzip.compress(elf(m)), "gzip"),
    "truncated bzImage header": (lambda m: bzimage(0x210), "truncated"),
    "truncated bzImage": (lambda m: bzimage(0x2000), "truncated"),
    "old bzImage": (lambda m: bzimage(0x2000, **{"0x206": 0x201}), "."),
    "truncated ELF header": (lambda m: elf(m)[:40], "truncated"),
    "truncated ELF": (lambda m: elf(m)[:0x1400], "truncated"),
    "32-bit ELF": (lambda m: elf(m, x4=b"\x01"), "."),
    "big-endian ELF": (lambda m: elf(m, x5=b"\x02"), "."),
    "ARM64 ELF": (lambda m: elf(m, x12=b"\xb7"), "."),
    "ELF without segments": (lambda m: elf(m, x38=b"\0\0"), "without segments"),
    "ELF with an entry nowhere": (lambda m: elf(m, x18=b"\x01\0\0\x70"), "entry"),
    "ELF with a segment below 1 MiB": (lambda m: elf(m, x58=bytes(8)), "below 1 MiB"),
    "ELF with a segment outside memory": (lambda m: elf(m, x58=b"\0\0\0\0\x01\0\0\0"), "memory ends"),
    "ELF with a segment of all memory": (lambda m: elf(m, x68=b"\xff" * 8), "."),
    "ELF with a segment outside the file": (lambda m: elf(m, x48=b"\xff" * 8), "truncated"),
}


def kernel_case(name, make, text):
    @case(f"bad kernel: {name}")
    def run(m):
        m.file("kernel", make(m))
        refused(m, ["--kernel", "kernel"], "--kernel kernel: .*" + text)


for label, (maker, expected) in KERNELS.items():
    kernel_case(label, maker, expected)


@case("bad kernel: missing, a directory, a device")
def _(m):
    refused(m, ["--kernel", "nothing"], "--kernel nothing: .*No such file")
    refused(m, ["--kernel", "."], "--kernel .: .*directory")
    refused(m, ["--kernel", "/dev/null"], "--kernel /dev/null: ")
    refused(m, ["--kernel", "/proc/self/mem"], "--kernel /proc/self/mem: ")


@case("bad kernel: no permission")
def _(m):
    path = m.file("kernel", b"x")
    os.chmod(path, 0)
    if os.access(path, os.R_OK):
        raise Skip("this user may read everything")
    refused(m, ["--kernel", "kernel"], "--kernel kernel: .*Permission denied")


@case("bad kernel: headers with flipped bits never crash vmm")
def _(m):
    whole = elf(m)
    chance = random.Random(20240229)
    for i in range(60):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(0x78)] ^= 1 << chance.randrange(8)
        m.file("kernel", bytes(data))
        r = m.run(None, "--kernel", "kernel", "--cmdline", "exit=5", "--serial", "null", "--timeout", 0.3 * m.slack)
        check(r.status in (1, 4, 5, 124), f"round {i}\n{r}")
        check(r.status != 1 or len(r.err.splitlines()) == 1, f"round {i}\n{r}")


@case("bad kernel: truncated anywhere")
def _(m):
    whole = elf(m)
    offset, size = struct.unpack_from("<Q", whole, 0x48)[0], struct.unpack_from("<Q", whole, 0x60)[0]
    end = offset + size  # of the segment: sections follow, which nobody needs
    for length in [*range(0, 0x80, 9), *range(0x80, end, end // 12), end - 1]:
        m.file("kernel", whole[:length])
        refused(m, ["--kernel", "kernel", "--cmdline", "exit=5"], "--kernel kernel: ")


@case("bad initrd: missing, directory, empty")
def _(m):
    refused(m, ["--initrd", "nothing"], "--initrd nothing: .*No such file", "tool")
    refused(m, ["--initrd", "."], "--initrd .: .*directory", "tool")
    m.file("empty", b"")
    refused(m, ["--initrd", "empty"], "--initrd empty: .*empty", "tool")


@case("bad initrd: larger than memory")
def _(m):
    with open(m.path("initrd"), "wb") as f:
        f.truncate(300 << 20)
    refused(m, ["--initrd", "initrd"], "--initrd initrd: ", "tool")
    with open(m.path("initrd"), "wb") as f:
        f.truncate(1 << 42)
    refused(m, ["--initrd", "initrd"], "--initrd initrd: ", "tool")


@case("bad initrd: just too large beside the kernel")
def _(m):
    with open(m.path("initrd"), "wb") as f:
        f.truncate((32 << 20) - (2 << 20))
    refused(m, ["--memory", "32M", "--initrd", "initrd"], "--initrd initrd: ", "tool")


@case("bad initrd: without end")
def _(m):
    refused(m, ["--memory", "32M", "--initrd", "/dev/zero"], "--initrd /dev/zero: ", "tool")


@case("--boot pvh: refused without the note; --boot host takes an ELF, --boot guest does not")
def _(m):
    refused(m, ["--boot", "pvh"], "--boot pvh: .*no PVH entry", "tool")
    m.run("tool", "--boot", "host", "--cmdline", "exit=11").expect(11)
    refused(m, ["--boot", "guest"], "--boot guest: .*ELF", "tool")


@case("hugepages: used if there are any, else one line")
def _(m):
    r = m.run("tool", "--memory", "32M,hugepages=on", "--cmdline", "exit=12")
    check(r.status == 12 or (r.status == 1 and "--memory" in r.err and len(r.err.splitlines()) == 1), str(r))


@case("stats: a full or missing place")
def _(m):
    m.run("tool", "--stats", "/dev/full", "--cmdline", "exit=0").expect(1, err="--stats /dev/full: No space left")
    m.run("tool", "--stats", "/nowhere/x", "--cmdline", "exit=0").expect(1, err="--stats /nowhere/x: No such file")
    m.run("tool", "--stats", ".", "--cmdline", "exit=0").expect(1, err="--stats .: Is a directory")
    # The guest's own status is worth more.
    m.run("tool", "--stats", "/dev/full", "--cmdline", "exit=40").expect(40, err="--stats /dev/full")


@case("serial: places that cannot be written")
def _(m):
    refused(m, ["--serial", "file:/nowhere/x"], "--serial file:/nowhere/x: No such file", "tool")
    refused(m, ["--serial", "unix:/nowhere/x"], "--serial unix:/nowhere/x: No such file", "tool")
    refused(m, ["--serial", "unix:" + "x" * 200], "--serial unix:x+: File name too long", "tool")


def in_namespace(m, script, *arguments):
    """Runs vmm where `script` changed the mounts."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        raise Skip("needs root and unshare")
    probe = subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False)
    if probe.returncode:
        raise Skip("mount namespaces are not permitted")
    return m.finish(m.start(["unshare", "-m", "sh", "-c", script + ' && exec "$@"', "sh",
                             *m.command("tool", "--cmdline", "exit=5"), *arguments]))


@case("host: no /dev/kvm")
def _(m):
    r = in_namespace(m, "mount -t tmpfs none /dev")
    r.expect(1, err="^vmm: /dev/kvm: No such file")
    check(len(r.err.splitlines()) == 1, str(r))


@case("host: /dev/kvm is something else")
def _(m):
    m.file("kvm", b"")
    r = in_namespace(m, "mount --bind kvm /dev/kvm")
    r.expect(1, err="^vmm: /dev/kvm: ")
    check(len(r.err.splitlines()) == 1, str(r))


@case("host: no permission for /dev/kvm")
def _(m):
    if not shutil.which("setpriv"):
        raise Skip("needs setpriv")
    m.file("kvm", b"")
    os.chmod(m.path("kvm"), 0)
    shutil.copy(m.vmm, m.path("vmm"))  # the build folder may be closed to others
    shutil.copy(m.guest("tool"), m.path("tool"))
    os.chmod(m.directory, 0o755)
    m.vmm, m.guests = m.path("vmm"), m.directory
    r = in_namespace(m, "mount --bind kvm /dev/kvm && exec setpriv --reuid 65534 --clear-groups \"$@\"")
    r.expect(1, err="^vmm: /dev/kvm: Permission denied: .*group kvm")
    check(len(r.err.splitlines()) == 1, str(r))


@case("--check-host: reports without /dev/kvm, too")
def _(m):
    here = m.run(None, "--check-host")
    check(here.status in (0, 1) and "kvm" in here.out.lower(), str(here))
    if os.geteuid() == 0:
        r = m.finish(m.start(["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh", m.vmm,
                              "--check-host"]))
        check(r.status == 1 and "/dev/kvm" in r.out + r.err, str(r))


@case("--help and --version")
def _(m):
    for arguments in (["--help"], ["-h"], ["--cpus", "2", "--help"]):
        r = m.run(None, *arguments).expect(0, out="usage: vmm --kernel FILE")
        check(r.err == "" and "--timeout" in r.out and "Exit status" in r.out, str(r))
        for line in r.out.splitlines():  # none is cut off
            check(line.count("[") == line.count("]"), line)
    m.run(None, "--version").expect(0, out=r"^vmm \d+\.\d+\.\d+\n$")


@case("--dump-dtb: a tree that dtc takes without a warning")
def _(m):
    if not shutil.which("dtc"):
        raise Skip("needs dtc")
    m.run(None, "--dump-dtb", "dtb", "--cpus", 4, "--memory", "5G", "--device", "pci-test").expect(0)
    r = subprocess.run(["dtc", "-I", "dtb", "-O", "dts", "dtb"], cwd=m.directory, capture_output=True, check=False)
    check(r.returncode == 0 and not r.stderr, r.stderr.decode())
    check(b"cpu@3" in r.stdout and b"ns16550a" in r.stdout and b"pci-host-ecam-generic" in r.stdout,
          r.stdout.decode())


@case("--dump-dtb: with a kernel, the guest still runs; a place that cannot be written")
def _(m):
    m.run("tool", "--dump-dtb", "dtb", "--cmdline", "exit=21").expect(21)
    check(os.path.getsize(m.path("dtb")) > 500, "no tree")
    refused(m, ["--dump-dtb", "/nowhere/x"], "--dump-dtb /nowhere/x: No such file")
    refused(m, ["--dump-dtb", "/dev/full"], "--dump-dtb /dev/full: No space left")
