/* SPDX-License-Identifier: MIT */
/* What a file given as a kernel is; and when it is none, what it is instead and what to do about it. */
#include <errno.h>
#include <stdio.h>

#include "internal.h"

/* Told by a few bytes at a fixed place; looked at in this order. */
static const struct magic {
	uint32_t off;
	uint32_t len;
	const char *bytes;
	const char *told;
} magics[] = {
	{ 0, 3, "\x1f\x8b\x08", "is gzip-compressed: unpack it with gunzip" },
	{ 0, 6,
	  "\xfd"
	  "7zXZ\0",
	  "is xz-compressed: unpack it with unxz" },
	{ 0, 4, "\x28\xb5\x2f\xfd", "is zstd-compressed: unpack it with unzstd" },
	{ 0, 3, "BZh", "is bzip2-compressed: unpack it with bunzip2" },
	{ 0, 4, "\x04\x22\x4d\x18", "is lz4-compressed: unpack it with unlz4" },
	{ 0, 4, "\x02\x21\x4c\x18", "is lz4-compressed: unpack it with unlz4" },
	{ 0, 9, "\x89LZO\0\r\n\x1a\n", "is lzo-compressed: unpack it with lzop -d" },
	{ 0, 3, "\x5d\0\0", "is lzma-compressed: unpack it with unlzma" },
	{ 0x38, 4, "ARM\x64", "is an ARM64 kernel Image: this machine is an x86-64 PC" },
	{ 0x24, 4, "\x18\x28\x6f\x01", "is a 32-bit ARM zImage: this machine is an x86-64 PC" },
	{ 0x38, 4, "RSC\x05", "is a RISC-V kernel Image: this machine is an x86-64 PC" },
	{ 4, 4, "zimg", "is an EFI zboot image: give a bzImage or vmlinux" },
	{ 0, 4, "\x27\x05\x19\x56", "is a U-Boot uImage: give the bzImage it was made of" },
	{ 0, 4, "\xd0\x0d\xfe\xed", "is a device tree or FIT image: give a bzImage or vmlinux" },
	{ 0, 4, "QFI\xfb", "is a qcow2 disk image: give the kernel that is in it" },
	{ 0, 4, "KDMV", "is a VMDK disk image: give the kernel that is in it" },
	{ 0, 8, "vhdxfile", "is a VHDX disk image: give the kernel that is in it" },
	{ 0, 8, "conectix", "is a VHD disk image: give the kernel that is in it" },
	{ 0x8001, 5, "CD001", "is an ISO 9660 image: a kernel is needed, take it out of the image" },
	{ 0x438, 2, "\x53\xef", "is an ext2/3/4 file system image: give the kernel that is in it" },
	{ 0, 4, "hsqs", "is a SquashFS file system image: a kernel is needed" },
	{ 0, 6, "070701", "is a cpio archive: an initramfs goes to --initrd" },
	{ 0, 6, "070702", "is a cpio archive: an initramfs goes to --initrd" },
	{ 0, 6, "070707", "is a cpio archive: an initramfs goes to --initrd" },
	{ 257, 5, "ustar", "is a tar archive: give the kernel file in it" },
	{ 0, 8, "!<arch>\n", "is an ar archive or Debian package: give the kernel file in it" },
	{ 0, 4, "\xed\xab\xee\xdb", "is an RPM package: give the kernel file in it" },
	{ 0, 4, "PK\x03\x04", "is a zip archive: give the kernel file in it" },
	{ 0, 2, "#!", "is a script: give a bzImage or vmlinux" },
};

static bool has(const uint8_t *data, size_t size, size_t off, const char *bytes, size_t len)
{
	return fits(off, len, size) && memcmp(data + off, bytes, len) == 0;
}

static const char *machine_name(unsigned int machine)
{
	switch (machine) {
	case EM_386:
		return "32-bit x86";
	case EM_ARM:
		return "ARM";
	case EM_AARCH64:
		return "ARM64";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC:
	case EM_PPC64:
		return "PowerPC";
	case EM_S390:
		return "s390";
	case EM_MIPS:
		return "MIPS";
	case EM_LOONGARCH:
		return "LoongArch";
	default:
		return NULL;
	}
}

static int sniff_elf(const uint8_t *data, size_t size, char *err, size_t errlen)
{
	unsigned int type, machine;

	if (size < sizeof(Elf64_Ehdr))
		return loader_fail(err, errlen, -ENOEXEC, "is a truncated ELF file: it has only %zu bytes", size);
	type = load16(data + 16);
	machine = load16(data + 18);
	if (data[EI_DATA] != ELFDATA2LSB)
		return loader_fail(err, errlen, -ENOEXEC, "is a big-endian ELF file: this machine is an x86-64 PC");
	/* edk2's CloudHv build says 386 in the header of a 64-bit file. */
	if (machine != EM_X86_64 && (machine != EM_386 || data[EI_CLASS] != ELFCLASS64)) {
		const char *name = machine_name(machine);

		if (name)
			return loader_fail(err, errlen, -ENOEXEC,
					   "is an ELF file for %s: this machine takes 64-bit x86 kernels", name);
		return loader_fail(err, errlen, -ENOEXEC,
				   "is an ELF file for machine %u: this machine takes 64-bit x86 kernels", machine);
	}
	if (data[EI_CLASS] != ELFCLASS64)
		return loader_fail(err, errlen, -ENOEXEC,
				   "is a 32-bit ELF file: this machine takes 64-bit x86 kernels");
	if (type == ET_REL)
		return loader_fail(err, errlen, -ENOEXEC, "is an object file or kernel module, not a kernel");
	if (type == ET_CORE)
		return loader_fail(err, errlen, -ENOEXEC, "is a core dump, not a kernel");
	if (type != ET_EXEC && type != ET_DYN)
		return loader_fail(err, errlen, -ENOEXEC, "is a damaged ELF file: its type is %u", type);
	return 0;
}

static bool is_text(const uint8_t *data, size_t size)
{
	size_t i, n = size < 512 ? size : 512;

	for (i = 0; i < n; i++) {
		if ((data[i] < 0x20 && data[i] != '\n' && data[i] != '\r' && data[i] != '\t') || data[i] == 0x7f)
			return false;
	}
	return true;
}

static int name_other(const uint8_t *data, size_t size, char *err, size_t errlen)
{
	size_t i;

	for (i = 0; i < sizeof(magics) / sizeof(magics[0]); i++) {
		if (has(data, size, magics[i].off, magics[i].bytes, magics[i].len))
			return loader_fail(err, errlen, -ENOEXEC, "%s", magics[i].told);
	}
	if (has(data, size, 0, "MZ", 2))
		return loader_fail(err, errlen, -ENOEXEC,
				   "is an EFI or Windows program without a Linux setup header: give a bzImage or "
				   "vmlinux (from a unified kernel image, its .linux section)");
	if (has(data, size, 0x1fe, "\x55\xaa", 2) && has(data, size, 512, "EFI PART", 8))
		return loader_fail(err, errlen, -ENOEXEC, "is a disk image with a GPT: give the kernel that is in it");
	if (has(data, size, 0x1fe, "\x55\xaa", 2))
		return loader_fail(err, errlen, -ENOEXEC,
				   "is a disk image or boot sector: give the kernel that is in it");
	if (is_text(data, size))
		return loader_fail(err, errlen, -ENOEXEC, "is a text file: give a bzImage or vmlinux");
	return loader_fail(err, errlen, -ENOEXEC, "is no kernel that can be loaded: give a bzImage or an x86-64 ELF");
}

int loader_sniff(const uint8_t *data, size_t size, enum kernel_kind *kind, char *err, size_t errlen)
{
	if (has(data, size, 0, ELFMAG, SELFMAG)) {
		*kind = KERNEL_ELF64;
		return sniff_elf(data, size, err, errlen);
	}
	if (has(data, size, 0x1fe, "\x55\xaa", 2) && has(data, size, 0x202, "HdrS", 4)) {
		*kind = KERNEL_BZIMAGE;
		return 0;
	}
	return name_other(data, size, err, errlen);
}
