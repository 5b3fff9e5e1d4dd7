/* SPDX-License-Identifier: MIT */
/*
 * An ELF64 x86-64 kernel: Linux's vmlinux, or anything with a PVH entry, loaded by its program headers at its
 * physical addresses. Section headers are not looked at.
 *
 * The PVH entry is the note XEN_ELFNOTE_PHYS32_ENTRY (Xen's public/elfnote.h; docs/misc/pvh.pandoc).
 */
#include <errno.h>

#include "internal.h"

enum {
	MAX_SEGMENTS = 32,
	MAX_HEADERS = 128,
	NOTE_PHYS32_ENTRY = 18,
};

struct elf_plan {
	struct {
		uint64_t off, filesz, vaddr, paddr, memsz;
	} seg[MAX_SEGMENTS];
	unsigned int nseg;
	struct gpa_range range;
	uint64_t pvh;
	bool is_linux;
};

static int add_segment(struct elf_plan *plan, const Elf64_Phdr *ph, size_t size, const struct ram_view *ram, char *err,
		       size_t errlen)
{
	unsigned long long at = ph->p_paddr, len = ph->p_memsz;
	unsigned int i;

	if (plan->nseg == MAX_SEGMENTS)
		return loader_fail(err, errlen, -ENOEXEC, "is an ELF file with more than %d segments", MAX_SEGMENTS);
	if (ph->p_filesz > ph->p_memsz)
		return loader_fail(err, errlen, -ENOEXEC,
				   "is a damaged ELF file: a segment is larger in the file than in memory");
	if (!fits(ph->p_offset, ph->p_filesz, size))
		return loader_fail(err, errlen, -ENOEXEC,
				   "is a truncated ELF file: a segment ends at byte %llu, the file has %llu",
				   (unsigned long long)ph->p_offset + ph->p_filesz, (unsigned long long)size);
	if (at < LOADER_MIB)
		return loader_fail(err, errlen, -ENOEXEC,
				   "has a segment at %#llx: below 1 MiB is the boot loader's memory", at);
	if (!fits(at, len, ram->size))
		return loader_fail(err, errlen, -ENOMEM,
				   "has a segment at %#llx of %#llx bytes, and low memory ends at %#llx", at, len,
				   (unsigned long long)ram->size);
	for (i = 0; i < plan->nseg; i++) {
		if (at < plan->seg[i].paddr + plan->seg[i].memsz && plan->seg[i].paddr < at + len)
			return loader_fail(err, errlen, -ENOEXEC,
					   "is a damaged ELF file: its segments overlap at %#llx", at);
	}
	plan->seg[plan->nseg].off = ph->p_offset;
	plan->seg[plan->nseg].filesz = ph->p_filesz;
	plan->seg[plan->nseg].vaddr = ph->p_vaddr;
	plan->seg[plan->nseg].paddr = at;
	plan->seg[plan->nseg].memsz = len;
	plan->nseg++;
	if (plan->range.start == plan->range.end)
		plan->range = (struct gpa_range){ at, at + len };
	if (at < plan->range.start)
		plan->range.start = at;
	if (at + len > plan->range.end)
		plan->range.end = at + len;
	if (ph->p_vaddr >= LINUX_KERNEL_MAP)
		plan->is_linux = true;
	return 0;
}

/* The value of the PVH note in [notes, notes + len), 0 if there is none. */
static uint64_t find_pvh_note(const uint8_t *notes, uint64_t len)
{
	uint64_t at = 0;

	while (fits(at, sizeof(Elf64_Nhdr), len)) {
		Elf64_Nhdr nh;
		uint64_t name = at + sizeof(nh), desc, next;

		memcpy(&nh, notes + at, sizeof(nh));
		/* Names and contents are padded to 4, in 64-bit files too. */
		desc = name + ((nh.n_namesz + 3ull) & ~3ull);
		next = desc + ((nh.n_descsz + 3ull) & ~3ull);
		if (!fits(desc, nh.n_descsz, len))
			return 0;
		if (nh.n_type == NOTE_PHYS32_ENTRY && nh.n_namesz == 4 && memcmp(notes + name, "Xen", 4) == 0) {
			if (nh.n_descsz == 4)
				return load32(notes + desc);
			if (nh.n_descsz == 8)
				return load64(notes + desc);
		}
		at = next;
	}
	return 0;
}

static int read_headers(const uint8_t *data, size_t size, const struct ram_view *ram, struct elf_plan *plan,
			uint64_t *entry, char *err, size_t errlen)
{
	Elf64_Ehdr eh;
	unsigned int i;

	if (size < sizeof(eh))
		return loader_fail(err, errlen, -ENOEXEC, "is a truncated ELF file");
	memcpy(&eh, data, sizeof(eh));
	if (eh.e_phnum && eh.e_phentsize != sizeof(Elf64_Phdr))
		return loader_fail(err, errlen, -ENOEXEC, "is a damaged ELF file: program headers of %u bytes",
				   eh.e_phentsize);
	if (eh.e_phnum > MAX_HEADERS)
		return loader_fail(err, errlen, -ENOEXEC, "is a damaged ELF file: %u program headers", eh.e_phnum);
	if (!fits(eh.e_phoff, eh.e_phnum * sizeof(Elf64_Phdr), size))
		return loader_fail(err, errlen, -ENOEXEC,
				   "is a truncated ELF file: its program headers are outside the file");
	for (i = 0; i < eh.e_phnum; i++) {
		Elf64_Phdr ph;
		int rc = 0;

		memcpy(&ph, data + eh.e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type == PT_LOAD && ph.p_memsz)
			rc = add_segment(plan, &ph, size, ram, err, errlen);
		else if (ph.p_type == PT_NOTE && !plan->pvh && fits(ph.p_offset, ph.p_filesz, size))
			plan->pvh = find_pvh_note(data + ph.p_offset, ph.p_filesz);
		if (rc)
			return rc;
	}
	*entry = eh.e_entry;
	if (!plan->nseg)
		return loader_fail(err, errlen, -ENOEXEC,
				   "is an ELF file without segments to load: give an executable kernel, not an object "
				   "file or module");
	return 0;
}

/* Guest-physical address of an entry given as a physical or virtual one, 0 if it lies in no segment. */
static uint64_t entry_address(const struct elf_plan *plan, uint64_t entry)
{
	unsigned int i;

	for (i = 0; i < plan->nseg; i++) {
		if (entry - plan->seg[i].paddr < plan->seg[i].memsz)
			return entry;
	}
	for (i = 0; i < plan->nseg; i++) {
		if (entry - plan->seg[i].vaddr < plan->seg[i].memsz)
			return plan->seg[i].paddr + (entry - plan->seg[i].vaddr);
	}
	return 0;
}

static void put_header(struct load_result *res, unsigned int at, const void *value, size_t len)
{
	memcpy(res->setup_header + (at - SETUP_HEADER_OFFSET), value, len);
}

/* What a loader may assume of a kernel that has no setup header: that of any 64-bit Linux. */
static void make_header(struct load_result *res)
{
	const uint32_t cmdline = 2047, initrd_max = 0x7fffffff, alignment = LOADER_2M;

	put_header(res, 0x1fe, "\x55\xaa", 2);
	put_header(res, 0x202, "HdrS", 4);
	put_header(res, 0x206, "\x0f\x02", 2); /* protocol 2.15 */
	put_header(res, 0x211, "\x01", 1);     /* LOADED_HIGH */
	put_header(res, 0x22c, &initrd_max, 4);
	put_header(res, 0x230, &alignment, 4);
	put_header(res, 0x236, "\x01", 1); /* XLF_KERNEL_64 */
	put_header(res, 0x238, &cmdline, 4);
	res->setup_header_len = 0x268 - SETUP_HEADER_OFFSET;
	res->cmdline_max = cmdline;
	res->initrd_max = initrd_max;
}

int elf_load(const struct kernel_image *img, const struct ram_view *ram, const struct load_options *opt,
	     struct load_result *res, char *err, size_t errlen)
{
	struct elf_plan plan = { .nseg = 0 };
	uint64_t entry = 0;
	unsigned int i;
	int rc = read_headers(img->map.data, img->map.size, ram, &plan, &entry, err, errlen);

	if (rc)
		return rc;
	if (opt->top && plan.range.end > opt->top)
		return loader_fail(err, errlen, -ENOMEM, "needs memory up to %llu MiB, and has %llu MiB",
				   (unsigned long long)((plan.range.end + LOADER_MIB - 1) / LOADER_MIB),
				   (unsigned long long)(opt->top / LOADER_MIB));
	res->entry_linux64 = entry_address(&plan, entry);
	/* Only a physical entry makes sense to PVH. */
	if (plan.pvh && plan.pvh == entry_address(&plan, plan.pvh))
		res->entry_pvh = plan.pvh;
	if (!res->entry_linux64 && !res->entry_pvh)
		return loader_fail(err, errlen, -ENOEXEC,
				   "is a damaged ELF file: its entry %#llx is in no segment, and it has no PVH note",
				   (unsigned long long)entry);
	for (i = 0; i < plan.nseg; i++) {
		uint8_t *dst = ram->host + plan.seg[i].paddr;
		const uint8_t *src = img->map.data + plan.seg[i].off;

		if (opt->ram_is_zero) {
			loader_copy_sparse(dst, src, plan.seg[i].filesz);
			continue;
		}
		loader_move_down(dst, src, plan.seg[i].filesz);
		loader_zero(dst + plan.seg[i].filesz, plan.seg[i].memsz - plan.seg[i].filesz);
	}
	make_header(res);
	res->format = "ELF";
	res->is_linux = plan.is_linux;
	res->image = plan.range;
	res->dirty = plan.range;
	return 0;
}
