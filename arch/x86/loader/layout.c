/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation: the payload of a bzImage is an ELF file followed by the relocation table, and it is
 * unpacked straight into guest RAM, so that most of it is never copied.
 *
 * An x86-64 kernel is linked with a maximum page size of 2 MiB, so its first segment starts 2 MiB into the
 * file. Unpacking from base - 2 MiB on ("origin") therefore puts that segment in its place. Where a kernel
 * differs, the part unpacked first is moved once the program headers are known.
 *
 * Each later segment lies closer in memory than in the file, or as far: it has to move down by seg.down,
 * which grows from segment to segment. A format made of independent blocks can do better: once the headers
 * are known, each block is unpacked with the shift that the segment at its start needs, and only what remains
 * (segments that start inside a block) is moved, right after the block, lower parts first. Nothing is
 * overwritten by that: a part moves down to an end that is below the place of the part after it, before and
 * after that one moves.
 *
 * Where the shifts do not grow (not seen in the wild), nothing moves before all is unpacked: then the
 * segments that go down, lowest first, and after them those that go up, highest first.
 *
 * What follows the last segment (section headers, relocation table) is treated as one more segment, except
 * that in the last block it may stay where it is. Everything unpacked must stay below base + init_size, which
 * the boot protocol guarantees for a sound kernel; so a payload that unpacks without end is stopped early.
 */
#include "internal.h"

/*
 * What a decoder may have written behind its last byte, inside the room it was given: a few dozen bytes of
 * copies in fixed pieces, and libzstd keeps literals up to two blocks of 128 KiB further on.
 */
#define UNPACK_SLACK (512ull * 1024)

static void mark_dirty(struct layout *l, uint64_t start, uint64_t end)
{
	if (l->dirty.start == l->dirty.end) {
		l->dirty = (struct gpa_range){ start, end };
		return;
	}
	if (start < l->dirty.start)
		l->dirty.start = start;
	if (end > l->dirty.end)
		l->dirty.end = end;
}

/* The shift of the last segment that starts at or before off; the file's head stays. */
static uint64_t shift_at(const struct layout *l, uint64_t off)
{
	uint64_t shift = 0;
	unsigned int i;

	if (!l->parsed || !l->ordered)
		return 0;
	for (i = 0; i <= l->nseg && l->seg[i].off <= off; i++)
		shift = l->seg[i].down;
	return shift;
}

static uint8_t *layout_place(struct unpack_sink *sink, uint64_t off, uint64_t *room)
{
	struct layout *l = (struct layout *)sink;
	uint64_t at;

	l->shift = shift_at(l, off);
	at = l->origin + off - l->shift;
	if (at >= l->limit)
		return NULL;
	*room = l->limit - at;
	return l->ram->host + at;
}

/* The first segment starts elsewhere in the file than at 2 MiB: start over from a better origin. */
static const char *move_origin(struct layout *l, uint64_t len)
{
	uint64_t origin = l->seg[0].dst - l->seg[0].off;

	if (l->seg[0].off > l->seg[0].dst || !fits(origin, len, l->limit))
		return "its first segment cannot be put in place";
	if (origin < l->origin)
		loader_move_down(l->ram->host + origin, l->ram->host + l->origin, len);
	else
		loader_move_up(l->ram->host + origin, l->ram->host + l->origin, len);
	mark_dirty(l, origin, origin + len);
	l->origin = origin;
	return NULL;
}

static const char *add_segment(struct layout *l, const Elf64_Phdr *ph)
{
	struct layout_segment *seg = &l->seg[l->nseg];
	uint64_t dst = l->base + (ph->p_paddr - l->pref);

	if (l->nseg == LAYOUT_SEGMENTS)
		return "it has too many segments";
	if (ph->p_filesz > ph->p_memsz || ph->p_offset > UINT64_MAX - ph->p_filesz)
		return "it has a segment of impossible size";
	if (ph->p_paddr < l->pref || !fits(ph->p_paddr - l->pref, ph->p_memsz, l->limit - l->base))
		return "it has a segment outside init_size";
	if (l->nseg && (ph->p_offset < seg[-1].off + seg[-1].filesz || dst < seg[-1].dst + seg[-1].memsz))
		return "its segments overlap or are not in order";
	*seg = (struct layout_segment){ ph->p_offset, ph->p_filesz, ph->p_memsz, dst, 0 };
	l->image_end = dst + ph->p_memsz;
	l->nseg++;
	return NULL;
}

/* Guest-physical entry: e_entry is physical in a kernel, virtual in some. */
static const char *set_entry(struct layout *l, uint64_t entry)
{
	if (entry >= LINUX_KERNEL_MAP)
		entry -= LINUX_KERNEL_MAP;
	if (entry < l->pref || entry - l->pref >= l->image_end - l->base)
		return "its entry lies outside the image";
	l->entry = l->base + (entry - l->pref);
	return NULL;
}

static const char *parse_headers(struct layout *l, uint64_t len)
{
	const uint8_t *elf = l->ram->host + l->origin;
	const char *why = NULL;
	Elf64_Ehdr eh;
	unsigned int i;

	if (len < sizeof(eh))
		return "it is not an ELF file";
	memcpy(&eh, elf, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_ident[EI_DATA] != ELFDATA2LSB || eh.e_machine != EM_X86_64)
		return "it is not an x86-64 ELF file";
	if (eh.e_phentsize != sizeof(Elf64_Phdr) || !fits(eh.e_phoff, (uint64_t)eh.e_phnum * sizeof(Elf64_Phdr), len))
		return "its program headers are damaged";
	for (i = 0; i < eh.e_phnum && !why; i++) {
		Elf64_Phdr ph;

		memcpy(&ph, elf + eh.e_phoff + i * sizeof(ph), sizeof(ph));
		if (ph.p_type == PT_LOAD && ph.p_memsz)
			why = add_segment(l, &ph);
	}
	if (!why && !l->nseg)
		why = "it has no segment to load";
	return why ? why : set_entry(l, eh.e_entry);
}

/* How far each segment has to go, and where the rest of the file would. */
static void compute_shifts(struct layout *l)
{
	const struct layout_segment *last = &l->seg[l->nseg - 1];
	unsigned int i;

	l->ordered = true;
	for (i = 0; i < l->nseg; i++) {
		struct layout_segment *seg = &l->seg[i];

		seg->down = l->origin + seg->off - seg->dst;
		if (seg->down >> 63 || (i && seg->down < seg[-1].down))
			l->ordered = false;
	}
	l->seg[l->nseg] = (struct layout_segment){
		.off = last->off + last->filesz,
		.filesz = UINT64_MAX - (last->off + last->filesz),
		.dst = last->dst + last->filesz,
		.down = last->down,
	};
}

/* Move what of a segment lies in [off, end) of the file, now unpacked with l->shift, to its place. */
static void move_part(struct layout *l, const struct layout_segment *seg, uint64_t off, uint64_t end)
{
	uint64_t from = seg->off > off ? seg->off : off;
	uint64_t to = end - seg->off < seg->filesz ? end : seg->off + seg->filesz;
	uint8_t *dst, *src;

	if (seg->off >= end || from >= to || seg->down == l->shift)
		return;
	dst = l->ram->host + (seg->dst + (from - seg->off));
	src = l->ram->host + (l->origin + from - l->shift);
	mark_dirty(l, seg->dst + (from - seg->off), seg->dst + (to - seg->off));
	if (dst < src)
		loader_move_down(dst, src, to - from);
	else
		loader_move_up(dst, src, to - from);
}

static const char *settle_all(struct layout *l, uint64_t total)
{
	uint64_t tail = l->origin + l->seg[l->nseg].off;
	unsigned int i;

	for (i = 0; i < l->nseg; i++) {
		const struct layout_segment *seg = &l->seg[i];

		if (!(seg->down >> 63))
			move_part(l, seg, 0, total);
		else if (seg->dst + seg->filesz > tail)
			return "its segments would overwrite its relocations";
	}
	for (i = l->nseg; i-- > 0;) {
		if (l->seg[i].down >> 63)
			move_part(l, &l->seg[i], 0, total);
	}
	return NULL;
}

static const char *layout_settle(struct unpack_sink *sink, uint64_t off, uint64_t len, bool last)
{
	struct layout *l = (struct layout *)sink;
	uint64_t start = l->origin + off - l->shift, end = start + len;
	unsigned int i;

	mark_dirty(l, start, l->limit - end > UNPACK_SLACK ? end + UNPACK_SLACK : l->limit);
	if (!l->parsed) {
		const char *why = parse_headers(l, len);

		if (!why && l->origin + l->seg[0].off != l->seg[0].dst)
			why = move_origin(l, len);
		if (why)
			return why;
		compute_shifts(l);
		l->parsed = true;
	}
	l->total = off + len;
	if (last && l->total < l->seg[l->nseg].off)
		return "it ends before its last segment does";
	if (!l->ordered)
		return last ? settle_all(l, l->total) : NULL;
	for (i = 0; i < l->nseg; i++)
		move_part(l, &l->seg[i], off, off + len);
	if (!last)
		move_part(l, &l->seg[l->nseg], off, off + len);
	return NULL;
}

void layout_init(struct layout *l, const struct ram_view *ram, uint64_t base, uint64_t span, uint64_t pref)
{
	*l = (struct layout){
		.sink = { .place = layout_place, .settle = layout_settle },
		.ram = ram,
		.base = base,
		.limit = base + span,
		.pref = pref,
		.origin = base - LOADER_2M,
	};
}

/* The end of the ELF file proper, 0 if its section headers are damaged. tail: its bytes from tail_off on. */
static uint64_t elf_end(const struct layout *l, const uint8_t *tail, uint64_t tail_off)
{
	uint64_t end = tail_off, i;
	Elf64_Ehdr eh;

	memcpy(&eh, l->ram->host + l->origin, sizeof(eh));
	if (!eh.e_shnum)
		return end;
	if (eh.e_shentsize != sizeof(Elf64_Shdr) || eh.e_shoff < tail_off ||
	    !fits(eh.e_shoff, (uint64_t)eh.e_shnum * sizeof(Elf64_Shdr), l->total))
		return 0;
	end = eh.e_shoff + (uint64_t)eh.e_shnum * sizeof(Elf64_Shdr);
	for (i = 0; i < eh.e_shnum; i++) {
		Elf64_Shdr sh;

		memcpy(&sh, tail + (eh.e_shoff - tail_off) + i * sizeof(sh), sizeof(sh));
		if (sh.sh_type == SHT_NOBITS || sh.sh_type == SHT_NULL)
			continue;
		if (!fits(sh.sh_offset, sh.sh_size, l->total))
			return 0;
		if (sh.sh_offset + sh.sh_size > end)
			end = sh.sh_offset + sh.sh_size;
	}
	return end;
}

const uint8_t *layout_tail(struct layout *l, uint64_t *len)
{
	uint64_t tail_off = l->seg[l->nseg].off;
	uint8_t *tail = l->ram->host + (l->origin + tail_off - l->shift), *table;
	uint64_t end = elf_end(l, tail, tail_off);

	*len = end ? (l->total - end) & ~3ull : 0;
	table = tail + (l->total - *len - tail_off);
	if (*len && ((uintptr_t)table & 3)) {
		uint8_t *aligned = table - ((uintptr_t)table & 3);

		/* The bytes before it are section headers, no longer needed, or padding. */
		loader_move_down(aligned, table, *len);
		table = aligned;
	}
	return table;
}

void layout_finish(struct layout *l, bool ram_is_zero)
{
	unsigned int i;

	for (i = 0; i < l->nseg; i++) {
		const struct layout_segment *seg = &l->seg[i];
		uint64_t from = seg->dst + seg->filesz, to = seg->dst + seg->memsz;

		if (ram_is_zero && to > l->dirty.end)
			to = l->dirty.end;
		if (ram_is_zero && from < l->dirty.start)
			from = l->dirty.start;
		if (from < to)
			loader_zero(l->ram->host + from, to - from);
	}
	if (!ram_is_zero)
		mark_dirty(l, l->base, l->image_end);
}
