/* SPDX-License-Identifier: MIT */
/*
 * The loader of compressed kernels: unpacked, relocated and placed, by every compressor.
 *
 * With VMM_KERNELS set to a directory, every vmlinuz* in it is loaded too.
 */
#include "loader_kernels.h"

#include <dirent.h>

static void every_compression_unpacks(void **state)
{
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		struct bytes bz = make_bzimage(&f->elf, &packers[i]);
		struct load_result res;

		reset_ram(f);
		assert_int_equal(load_bytes(f, &bz, &plain, &res), 0);
		assert_string_equal(res.note, "");
		assert_string_equal(res.format, packers[i].name);
		assert_true(res.unpacked && res.is_linux && !res.kaslr);
		assert_int_equal(res.entry_linux64, PREF + 0x40);
		assert_int_equal(res.image.start, PREF);
		assert_int_equal(res.image.end, PREF + INIT_SIZE);
		assert_int_equal(res.cmdline_max, 2047);
		assert_int_equal(res.initrd_max, 0x7fffffff);
		assert_int_equal(res.setup_header_len, 0x26c - 0x1f1);
		assert_memory_equal(res.setup_header, bz.data + 0x1f1, res.setup_header_len);
		check_image(f, PREF);
		check_dirty(f, &res);
		/* And into RAM that held something else. */
		memset(f->ram.host, 0xa5, f->ram.size);
		assert_int_equal(load_bytes(f, &bz, &(struct load_options){ .ram_is_zero = false }, &res), 0);
		check_image(f, PREF);
		free(bz.data);
	}
}

static uint64_t expect_moved(const struct fixture *f, const uint8_t *image, uint32_t place, unsigned int size)
{
	const uint8_t *elf = f->elf.data;
	uint64_t was = 0, is = 0;
	uint32_t off;

	if (place >= INIT_REL)
		off = INIT_OFF + (place - INIT_REL);
	else
		off = place >= 0x400000 ? DATA_OFF + (place - 0x400000) : TEXT_OFF + place;
	memcpy(&was, elf + off, size);
	memcpy(&is, image + place, size);
	return is - was;
}

static void check_relocated(const struct fixture *f, const struct load_result *res, bool negated)
{
	const uint8_t *image = f->ram.host + res->image.start;
	uint64_t delta = res->virt_offset;
	size_t i;

	for (i = 0; i < sizeof(places32) / 4; i++)
		assert_int_equal((uint32_t)expect_moved(f, image, places32[i], 4), (uint32_t)delta);
	for (i = 0; i < sizeof(places_neg) / 4; i++)
		assert_int_equal((uint32_t)expect_moved(f, image, places_neg[i], 4), negated ? (uint32_t)-delta : 0);
	for (i = 0; i < sizeof(places64) / 4; i++)
		assert_int_equal(expect_moved(f, image, places64[i], 8), delta);
	/* A byte that no relocation touches. */
	assert_int_equal(image[0x400300], f->elf.data[DATA_OFF + 0x300]);
	assert_int_equal(image[TEXT_LEN - 1], f->elf.data[TEXT_OFF + TEXT_LEN - 1]);
}

static void both_relocation_tables_apply(void **state)
{
	struct fixture *f = *state;
	int negated;
	size_t i;

	for (negated = 0; negated < 2; negated++) {
		struct bytes elf = make_elf();

		put_relocations(&elf, negated);
		for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
			struct bytes bz = make_bzimage(&elf, &packers[i]);
			struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = 0x9e3779b97f4a7c15 };
			struct load_result res;

			reset_ram(f);
			assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
			assert_string_equal(res.note, "");
			assert_true(res.kaslr && res.unpacked);
			assert_true(res.virt_offset && res.virt_offset % 0x200000 == 0);
			assert_true(res.image.start >= PREF && res.image.start % 0x200000 == 0);
			assert_true(res.image.end <= RAM_SIZE);
			assert_int_equal(res.entry_linux64, res.image.start + 0x40);
			check_relocated(f, &res, negated);
			check_dirty(f, &res);
			free(bz.data);
		}
		free(elf.data);
	}
}

static void kaslr_stays_in_bounds(void **state)
{
	const struct bzimage_info bz = { .alignment = 0x200000, .pref_address = PREF, .init_size = INIT_SIZE };
	const uint64_t randoms[] = { 0, UINT64_MAX, 0xffffffff, 0xffffffff00000000, 0x8000000080000000 };
	struct kaslr_choice first = { 0 }, last = { 0 };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(randoms) / 8; i++) {
		struct kaslr_choice c;

		kaslr_choose(&bz, RAM_SIZE, randoms[i], &c);
		assert_true(c.base >= PREF && c.base + INIT_SIZE <= RAM_SIZE && c.base % 0x200000 == 0);
		assert_true(PREF + c.virt_offset + INIT_SIZE <= LINUX_IMAGE_SIZE && c.virt_offset % 0x200000 == 0);
		if (i == 0)
			first = c;
		if (i == 1)
			last = c;
	}
	assert_int_equal(first.base, PREF);
	assert_int_equal(first.virt_offset, 0);
	assert_int_equal(last.base, RAM_SIZE - INIT_SIZE);
	assert_int_equal(last.virt_offset, LINUX_IMAGE_SIZE - PREF - INIT_SIZE);
}

static void top_keeps_kernel_below(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = UINT64_MAX, .top = 40 * MIB };
	struct load_result res;

	assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
	assert_int_equal(res.image.end, 40 * MIB);
	opt.top = 27 * MIB;
	assert_int_equal(load_path(f, &opt, &res), -ENOMEM);
	assert_non_null(strstr(f->err, "needs memory up to 28 MiB"));
	free(bz.data);
}

static void hostile_relocations_are_refused(void **state)
{
	struct fixture *f = *state;
	const uint32_t link = (uint32_t)(LINUX_KERNEL_MAP + PREF), end = INIT_REL + INIT_LEN + BSS_LEN;
	const uint32_t bad[] = { link - 1, link + end - 3, link + end, 0x7fffffff, 1, 0xffffffff };
	struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = UINT64_MAX / 3 };
	size_t i, list;

	for (i = 0; i < sizeof(bad) / 4; i++) {
		for (list = 0; list < 3; list++) {
			struct bytes elf = make_elf(), bz;
			struct load_result res;

			put_relocations(&elf, true);
			/* Table: 0, 4 places, 0, 2 places, 0, 4 places */
			put32(elf.data + ELF_LEN + 4 * (list == 0 ? 2 : list == 1 ? 6 : 9), bad[i]);
			bz = make_bzimage(&elf, lz4);
			assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
			assert_false(res.unpacked || res.kaslr);
			assert_non_null(strstr(res.note, "relocation table is damaged"));
			assert_int_equal(res.entry_linux64, res.image.start + 0x200);
			free(bz.data);
			free(elf.data);
		}
	}
}

static void kernel_without_relocations_is_told(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = 7 };
	struct load_result res;

	assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
	assert_true(res.unpacked);
	assert_false(res.kaslr);
	assert_non_null(strstr(res.note, "no relocations"));
	check_image(f, res.image.start);
	free(bz.data);
}

static void guest_unpacks_itself(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	struct load_options opt = { .guest_unpack = true, .ram_is_zero = true };
	struct load_result res;

	reset_ram(f);
	assert_int_equal(load_bytes(f, &bz, &opt, &res), 0);
	assert_int_equal(res.entry_linux64, PREF + 0x200);
	assert_int_equal(res.image.end, PREF + INIT_SIZE);
	assert_false(res.unpacked);
	assert_memory_equal(f->ram.host + PREF, bz.data + SETUP, bz.len - SETUP);
	check_dirty(f, &res);
	/* Payload of an unknown kind: the same, with a note. */
	memset(bz.data + SETUP + 0x240, 0x77, 16);
	assert_int_equal(load_bytes(f, &bz, &plain, &res), 0);
	assert_non_null(strstr(res.note, "compression"));
	assert_int_equal(res.entry_linux64, PREF + 0x200);
	/* Without a 64-bit entry there is nothing to fall back to. */
	put16(bz.data + 0x236, 0);
	assert_int_equal(load_bytes(f, &bz, &plain, &res), -ENOEXEC);
	assert_non_null(strstr(f->err, "no 64-bit entry"));
	free(bz.data);
}

static void segments_in_odd_places_load(void **state)
{
	struct fixture *f = *state;
	const struct {
		uint64_t off, rel, len;
	} seg[3] = {
		/* The first neither at 2 MiB nor in its place; the second goes up by 1 MiB; the third down.
		 */
		{ 0x1000, 0, 0x180000 },
		{ 0x200000, 0x2ff000, 0x80000 },
		{ 0x600000, 0x400000, 0x90000 },
	};
	size_t i, p;

	for (p = 0; p < sizeof(packers) / sizeof(packers[0]); p++) {
		struct bytes elf = make_elf(), bz;
		struct load_result res;

		for (i = 0; i < 3; i++) {
			put_phdr(elf.data, (unsigned int)i, seg[i].off, PREF + seg[i].rel, seg[i].len, seg[i].len);
			fill(elf.data + seg[i].off, seg[i].len, (uint32_t)(p + 7 * i));
		}
		bz = make_bzimage(&elf, &packers[p]);
		reset_ram(f);
		assert_int_equal(load_bytes(f, &bz, &plain, &res), 0);
		assert_string_equal(res.note, "");
		for (i = 0; i < 3; i++)
			assert_memory_equal(f->ram.host + PREF + seg[i].rel, elf.data + seg[i].off, seg[i].len);
		check_dirty(f, &res);
		free(bz.data);
		free(elf.data);
	}
}

static void load_real_kernel(const char *path)
{
	struct ram_view ram = { .size = 256 * MIB };
	struct load_options opt = { .kaslr = true, .ram_is_zero = true, .random = 0x0123456789abcdef };
	struct kernel_image img;
	struct load_result res;
	char err[256] = "";

	ram.host = mmap(NULL, ram.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_ptr_not_equal(ram.host, MAP_FAILED);
	assert_int_equal(loader_open(&img, path, err, sizeof(err)), 0);
	assert_int_equal(loader_load(&img, &ram, &opt, &res, err, sizeof(err)), 0);
	loader_close(&img);
	print_message("%s: %s, note '%s'\n", path, res.format, res.note);
	assert_true(res.unpacked && res.kaslr && res.virt_offset);
	munmap(ram.host, ram.size);
}

static void real_kernels_load(void **state)
{
	const char *dir = getenv("VMM_KERNELS");
	struct dirent *e;
	unsigned int n = 0;
	DIR *d;

	(void)state;
	if (!dir) {
		print_message("VMM_KERNELS is not set to a directory with kernels\n");
		skip();
	}
	d = opendir(dir);
	assert_non_null(d);
	while ((e = readdir(d))) {
		char path[512];

		if (strncmp(e->d_name, "vmlinuz", 7) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		load_real_kernel(path);
		n++;
	}
	closedir(d);
	assert_true(n > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_compression_unpacks),
		cmocka_unit_test(both_relocation_tables_apply),
		cmocka_unit_test(kaslr_stays_in_bounds),
		cmocka_unit_test(top_keeps_kernel_below),
		cmocka_unit_test(hostile_relocations_are_refused),
		cmocka_unit_test(kernel_without_relocations_is_told),
		cmocka_unit_test(guest_unpacks_itself),
		cmocka_unit_test(segments_in_odd_places_load),
		cmocka_unit_test(real_kernels_load),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
