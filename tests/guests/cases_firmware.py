# SPDX-License-Identifier: MIT
"""--firmware and --nvram: a firmware of ours (firmware/firmware.c) on the real machine, and files that are none."""

import os
import random
import shutil
import subprocess

from harness import Skip, case, check

VARS_SIZE = 32 << 10  # what belongs to 96 KiB of code
OVMF = "/usr/share/OVMF"


def firmware(m, template=True):
    """The firmware under a name to which a file of empty variables belongs."""
    shutil.copy(m.guest("FIRMWARE_CODE.fd"), m.path("MY_CODE.fd"))
    if template:
        m.file("MY_VARS.fd", b"\xff" * VARS_SIZE)
    return ["--firmware", m.path("MY_CODE.fd"), "--memory", "64M"]


def refused(m, text, *arguments):
    r = m.run(None, *arguments)
    r.expect(1, err=text)
    check(len(r.err.splitlines()) == 1 and not r.out, f"more than one line\n{r}")


@case("firmware: flash, configuration device and ECAM, hostile too, over a reset")
def _(m):
    r = m.run(None, *firmware(m), timeout=60).expect(0, out="first boot\r?\nreset\r?\npassed\r?\n$")
    check(not r.err, str(r))


@case("firmware: --nvram is made, and kept from run to run")
def _(m):
    options = [*firmware(m), "--nvram", m.path("nvram")]
    m.run(None, *options, timeout=60).expect(0, out="^first boot.*passed")
    with open(m.path("nvram"), "rb") as f:
        data = f.read()
    check(len(data) == VARS_SIZE and data[1] == 0x42, "the variable is not in the file")
    check(sorted(os.listdir(m.directory)) == ["MY_CODE.fd", "MY_VARS.fd", "nvram"], "something was left behind")
    m.run(None, *options, timeout=60).expect(0, out="^passed")
    m.run(None, *firmware(m), timeout=60).expect(0, out="^first boot")  # and not in the template


@case("firmware: code and variables in one file")
def _(m):
    with open(m.guest("FIRMWARE_CODE.fd"), "rb") as f:
        code = f.read()
    header = bytearray(72)  # of a volume of variables
    header[1] = 0xff  # where the firmware has its mark: not yet set
    header[16:32] = bytes.fromhex("8d2bf1ff96768b4ca9852747075b4f50")
    header[32:40] = VARS_SIZE.to_bytes(8, "little")
    header[40:44] = b"_FVH"
    header[48:50] = (72).to_bytes(2, "little")
    total = sum(int.from_bytes(header[i:i + 2], "little") for i in range(0, 72, 2))
    header[50:52] = (-total & 0xffff).to_bytes(2, "little")
    path = m.file("whole.fd", bytes(header) + b"\xff" * (VARS_SIZE - 72) + code)
    # The first byte of the chip is not blank here, which the firmware checks at its second boot.
    m.run(None, "--firmware", path, "--memory", "64M", timeout=60).expect(17, out="^first boot.*FAIL")
    r = m.run(None, "--firmware", path, "--nvram", m.path("nvram"), "--memory", "64M", timeout=60)
    r.expect(17, out="^first boot.*FAIL")
    with open(m.path("nvram"), "rb") as f:
        check(f.read(2) == b"\x00\x42", "the variables are not where they belong")
    with open(path, "rb") as f:
        check(f.read(2) == b"\x00\xff", "the firmware's file was changed")


@case("firmware: nothing for the variables")
def _(m):
    refused(m, "nvram: does not exist, and cannot be made: .*MY_VARS.fd: No such file",
            *firmware(m, template=False), "--nvram", m.path("nvram"))
    m.file("MY_VARS.fd", b"\xff" * (VARS_SIZE + 1))
    refused(m, "MY_VARS.fd does not have the 32768 bytes", *firmware(m, template=False), "--nvram", m.path("nvram"))
    shutil.copy(m.guest("FIRMWARE_CODE.fd"), m.path("other.fd"))
    refused(m, "no file with empty variables belongs to", "--firmware", m.path("other.fd"), "--nvram", m.path("nvram"))


@case("firmware: --nvram of the wrong size, a directory, in use")
def _(m):
    options = firmware(m)
    for size in (0, 1, VARS_SIZE - 1, VARS_SIZE + 1):
        path = m.file("nvram", b"\0" * size)
        refused(m, f"has {size} bytes, but the variables of this firmware have {VARS_SIZE}", *options, "--nvram", path)
    refused(m, "Is a directory", *options, "--nvram", m.directory)
    path = m.file("nvram", b"\xff" * VARS_SIZE)
    holder = subprocess.Popen(["flock", path, "sleep", "60"])
    m.processes.append(holder)
    while subprocess.run(["flock", "--nonblock", path, "true"], check=False).returncode == 0:
        pass
    refused(m, "is in use by another process", *options, "--nvram", path)


@case("firmware: --nvram on a full disk")
def _(m):
    # A limit on the size of files stands in for it, with the signal ignored that would come first.
    command = m.command(None, *firmware(m), "--nvram", m.path("nvram"))
    process = m.start(["sh", "-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh", *command])
    m.finish(process).expect(1, err="^vmm: --nvram [^ ]*: making it: File too large\n$")
    check(sorted(os.listdir(m.directory)) == ["MY_CODE.fd", "MY_VARS.fd"], "something was left behind")


@case("firmware: files that are none")
def _(m):
    with open(m.guest("FIRMWARE_CODE.fd"), "rb") as f:
        code = f.read()
    noise = random.Random(1).randbytes
    for data, text in (
            (b"", "has 0 bytes"),
            (code[:-1], "is cut off"),
            (code[:65536], "is cut off"),
            (code + code[:5000], "is cut off"),
            (code + noise(4096), "something that is no firmware volume at offset 0x18000"),
            (noise(96 << 10), "is not UEFI firmware"),
            (noise(9 << 20), "firmware has from 1 to 8388608"),
            (b"\x7fELF" + noise(5000), "--firmware"),
            (code[:-16] + bytes(16), "nothing at its end")):
        refused(m, text, "--firmware", m.file("X_CODE.fd", data))
    refused(m, "No such file", "--firmware", m.path("nowhere"))
    refused(m, "is not a regular file", "--firmware", m.directory)
    refused(m, "no firmware with a PVH entry", "--firmware", m.guest("boot"))
    refused(m, "takes no --nvram", "--firmware", m.guest("pvh"), "--nvram", m.path("nvram"))
    refused(m, "--kernel .*No such file", *firmware(m), "--kernel", m.path("nowhere"))
    refused(m, "--initrd .*No such file", *firmware(m), "--kernel", m.guest("boot"), "--initrd", m.path("nowhere"))


@case("firmware: an ELF file with a PVH entry")
def _(m):
    m.run(None, "--firmware", m.guest("pvh")).expect(0)
    with open(m.guest("pvh"), "rb") as f:
        data = bytearray(f.read())
    data[18:20] = (3).to_bytes(2, "little")  # e_machine of a 386 in a 64-bit file, as edk2's build has it
    m.run(None, "--firmware", m.file("386.fd", data)).expect(0)


@case("firmware: Debian's builds with System Management Mode are refused")
def _(m):
    found = False
    for name in ("OVMF_CODE.secboot.fd", "OVMF_CODE_4M.secboot.fd"):
        if os.path.exists(f"{OVMF}/{name}"):
            found = True
            refused(m, "System Management Mode, which this machine does not have", "--firmware", f"{OVMF}/{name}")
    if not found:
        raise Skip("the package ovmf is not installed")
