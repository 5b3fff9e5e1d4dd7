/* SPDX-License-Identifier: MIT */
/*
 * bzImage: the Linux/x86 boot protocol, Documentation/arch/x86/boot.rst.
 *
 * The kernel proper is a compressed ELF file inside the protected-mode part of the image. It is unpacked
 * here, which spares the guest 300 million instructions; what cannot be unpacked is left to the guest's own
 * decompressor, entered at its 64-bit entry.
 */
#include <errno.h>
#include <stdio.h>

#include "internal.h"

enum {
	HDR_SETUP_SECTS = 0x1f1,
	HDR_SYSSIZE = 0x1f4,
	HDR_HEADER_END = 0x201, /* one byte: the header ends at 0x202 + this */
	HDR_VERSION = 0x206,
	HDR_LOADFLAGS = 0x211,
	HDR_INITRD_ADDR_MAX = 0x22c,
	HDR_KERNEL_ALIGNMENT = 0x230,
	HDR_RELOCATABLE = 0x234,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_SIZE = 0x238,
	HDR_PAYLOAD_OFFSET = 0x248,
	HDR_PAYLOAD_LENGTH = 0x24c,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_SIZE = 0x260,
	HDR_END = 0x264, /* of what protocol 2.10 has */
	LOADED_HIGH = 1,
	XLF_KERNEL_64 = 1,
	ENTRY_64 = 0x200, /* in the protected-mode part */
};

static int check_placement(struct bzimage_info *info, char *err, size_t errlen)
{
	if (info->alignment & (info->alignment - 1) || !info->alignment || info->alignment > LOADER_GIB)
		return loader_fail(err, errlen, -ENOEXEC, "is a damaged bzImage: kernel_alignment is %#x",
				   info->alignment);
	/* A 64-bit kernel is mapped by 2 MiB pages, whatever it says (MIN_KERNEL_ALIGN). */
	if (info->alignment < LOADER_2M)
		info->alignment = LOADER_2M;
	if (!info->pref_address || info->pref_address % LOADER_2M || info->pref_address >= LINUX_IMAGE_SIZE)
		return loader_fail(err, errlen, -ENOEXEC, "is a damaged bzImage: pref_address is %#llx",
				   (unsigned long long)info->pref_address);
	if (!info->init_size || info->init_size > LINUX_IMAGE_SIZE)
		return loader_fail(err, errlen, -ENOEXEC, "is a damaged bzImage: init_size is %#x", info->init_size);
	return 0;
}

int bzimage_check(const uint8_t *data, size_t size, struct bzimage_info *info, char *err, size_t errlen)
{
	uint64_t code_size;

	if (size < HDR_END)
		return loader_fail(err, errlen, -ENOEXEC, "is a truncated bzImage: it ends inside its setup header");
	info->protocol = load16(data + HDR_VERSION);
	if (info->protocol < 0x020a)
		return loader_fail(err, errlen, -ENOEXEC,
				   "is too old: boot protocol %u.%02u, needed is 2.10 (Linux 2.6.31)",
				   info->protocol >> 8, info->protocol & 0xff);
	if (!(data[HDR_LOADFLAGS] & LOADED_HIGH))
		return loader_fail(err, errlen, -ENOEXEC, "is a zImage, not a bzImage: build the kernel as bzImage");
	info->setup_size = ((data[HDR_SETUP_SECTS] ? data[HDR_SETUP_SECTS] : 4u) + 1) * 512;
	code_size = (uint64_t)load32(data + HDR_SYSSIZE) * 16;
	if (code_size <= ENTRY_64)
		return loader_fail(err, errlen, -ENOEXEC, "is a damaged bzImage: syssize is %#x",
				   load32(data + HDR_SYSSIZE));
	if (!fits(info->setup_size, code_size, size))
		return loader_fail(err, errlen, -ENOEXEC,
				   "is a truncated bzImage: its header tells of %llu bytes, the file has %llu",
				   (unsigned long long)info->setup_size + code_size, (unsigned long long)size);
	/* The file is at most 4 GiB. */
	info->code_size = (uint32_t)(code_size < UINT32_MAX ? code_size : UINT32_MAX);
	info->xloadflags = info->protocol >= 0x020c ? load16(data + HDR_XLOADFLAGS) : 0;
	info->payload_offset = load32(data + HDR_PAYLOAD_OFFSET);
	info->payload_length = load32(data + HDR_PAYLOAD_LENGTH);
	info->init_size = load32(data + HDR_INIT_SIZE);
	info->alignment = load32(data + HDR_KERNEL_ALIGNMENT);
	info->pref_address = load64(data + HDR_PREF_ADDRESS);
	info->relocatable = data[HDR_RELOCATABLE] != 0;
	return check_placement(info, err, errlen);
}

static void copy_header(const uint8_t *data, size_t size, struct load_result *res)
{
	size_t len = 0x202u + data[HDR_HEADER_END] - SETUP_HEADER_OFFSET;

	if (len > SETUP_HEADER_MAX)
		len = SETUP_HEADER_MAX;
	if (len > size - SETUP_HEADER_OFFSET)
		len = size - SETUP_HEADER_OFFSET;
	memcpy(res->setup_header, data + SETUP_HEADER_OFFSET, len);
	res->setup_header_len = len;
	res->cmdline_max = load32(data + HDR_CMDLINE_SIZE);
	res->initrd_max = load32(data + HDR_INITRD_ADDR_MAX);
}

static void join_dirty(struct load_result *res, uint64_t start, uint64_t end)
{
	if (res->dirty.start == res->dirty.end) {
		res->dirty = (struct gpa_range){ start, end };
		return;
	}
	if (start < res->dirty.start)
		res->dirty.start = start;
	if (end > res->dirty.end)
		res->dirty.end = end;
}

/* After unpacking: move the kernel to its virtual address. NULL, or why the image is spoiled. */
static const char *relocate(struct layout *l, const struct kaslr_choice *at, struct load_result *res)
{
	uint64_t len;
	const uint8_t *table = layout_tail(l, &len);
	int rc = kaslr_relocate(l->ram->host + l->base, l->image_end - l->base, l->pref, table, len, at->virt_offset);

	if (rc == -ENOENT) {
		snprintf(res->note, sizeof(res->note),
			 "the kernel carries no relocations, so its virtual address is not randomised");
		return NULL;
	}
	if (rc)
		return "its relocation table is damaged";
	res->kaslr = true;
	res->virt_offset = at->virt_offset;
	return NULL;
}

/* NULL, or why the guest has to unpack it. */
static const char *unpack(const struct kernel_image *img, const struct ram_view *ram, const struct load_options *opt,
			  uint64_t top, struct load_result *res)
{
	const struct bzimage_info *bz = &img->bz;
	struct kaslr_choice at = { .base = bz->pref_address };
	bool kaslr = opt->kaslr && bz->relocatable;
	enum payload_format format;
	const uint8_t *payload;
	struct layout l;
	const char *why;
	uint64_t total;

	if (!fits(bz->payload_offset, bz->payload_length, bz->code_size) || bz->payload_length < 16)
		return "its header gives a payload outside the file";
	payload = img->map.data + bz->setup_size + bz->payload_offset;
	format = payload_sniff(payload, bz->payload_length);
	res->format = payload_name(format);
	if (kaslr)
		kaslr_choose(bz, top, opt->random, &at);
	layout_init(&l, ram, at.base, bz->init_size, bz->pref_address);
	why = payload_unpack(format, payload, bz->payload_length, &l.sink, &total);
	if (!why && kaslr)
		why = relocate(&l, &at, res);
	if (!why)
		layout_finish(&l, opt->ram_is_zero);
	else
		/* A library that fails has written somewhere in what it was given. */
		join_dirty(res, l.origin < at.base ? l.origin : at.base, l.limit);
	if (l.dirty.start != l.dirty.end)
		join_dirty(res, l.dirty.start, l.dirty.end);
	if (why)
		return why;
	res->entry_linux64 = l.entry;
	res->image = (struct gpa_range){ at.base, at.base + bz->init_size };
	res->unpacked = true;
	return NULL;
}

static int load_for_guest(const struct kernel_image *img, const struct ram_view *ram, struct load_result *res,
			  const char *why, char *err, size_t errlen)
{
	const struct bzimage_info *bz = &img->bz;
	uint64_t base = (bz->pref_address + bz->alignment - 1) & ~(uint64_t)(bz->alignment - 1);

	if (!(bz->xloadflags & XLF_KERNEL_64))
		return loader_fail(err, errlen, -ENOEXEC, "%s%s and has no 64-bit entry either",
				   why ? "cannot be unpacked: " : "is a 32-bit kernel", why ? why : "");
	if (bz->code_size > bz->init_size)
		return loader_fail(err, errlen, -ENOEXEC, "is a damaged bzImage: init_size is smaller than its code");
	if (!bz->relocatable)
		base = bz->pref_address;
	loader_move_down(ram->host + base, img->map.data + bz->setup_size, bz->code_size);
	join_dirty(res, base, base + bz->code_size);
	res->image = (struct gpa_range){ base, base + bz->init_size };
	res->entry_linux64 = base + ENTRY_64;
	if (why)
		snprintf(res->note, sizeof(res->note), "the kernel unpacks itself in the guest: %s", why);
	return 0;
}

int bzimage_load(const struct kernel_image *img, const struct ram_view *ram, const struct load_options *opt,
		 struct load_result *res, char *err, size_t errlen)
{
	const struct bzimage_info *bz = &img->bz;
	uint64_t top = opt->top && opt->top < ram->size ? opt->top : ram->size;
	uint64_t base = (bz->pref_address + bz->alignment - 1) & ~(uint64_t)(bz->alignment - 1);
	const char *why = NULL;

	if (!fits(base, bz->init_size, top))
		return loader_fail(err, errlen, -ENOMEM,
				   "needs memory up to %llu MiB (%llu MiB from %#llx on), and has %llu MiB",
				   (unsigned long long)((base + bz->init_size + LOADER_MIB - 1) / LOADER_MIB),
				   (unsigned long long)((bz->init_size + LOADER_MIB - 1) / LOADER_MIB),
				   (unsigned long long)base, (unsigned long long)(top / LOADER_MIB));
	copy_header(img->map.data, img->map.size, res);
	res->is_linux = true;
	res->format = "guest";
	if (!opt->guest_unpack) {
		why = unpack(img, ram, opt, top, res);
		if (!why)
			return 0;
	}
	return load_for_guest(img, ram, res, why, err, errlen);
}
