/* SPDX-License-Identifier: MIT */
/* The loader of compressed kernels, fed with ones that are cut short, damaged, or lie in their headers. */
#include "loader_kernels.h"

static void payload_larger_than_init_size_is_stopped(void **state)
{
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		struct bytes bz = make_bzimage(&f->elf, &packers[i]);
		struct load_result res;

		/* Smaller than the ELF, larger than the packed code where that is possible */
		put32(bz.data + 0x260, 6 * MIB);
		reset_ram(f);
		if (bz.len - SETUP > 6 * MIB) {
			assert_int_equal(load_bytes(f, &bz, &plain, &res), -ENOEXEC);
		} else {
			assert_int_equal(load_bytes(f, &bz, &plain, &res), 0);
			assert_false(res.unpacked);
			assert_non_null(strstr(res.note, "init_size"));
			assert_true(res.dirty.end <= PREF + 6 * MIB);
			check_dirty(f, &res);
		}
		free(bz.data);
	}
}

static void truncated_at_every_sector_fails(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	size_t len;

	for (len = 512; len < bz.len; len += 512) {
		/* A copy of exactly that size, so that the sanitizer sees a read past the end. */
		uint8_t *copy = len < 65536 || len % 65536 == 0 ? malloc(len) : NULL;
		struct load_result res;

		if (copy)
			memcpy(copy, bz.data, len);
		assert_int_equal(load_memory(f, copy ? copy : bz.data, len, &plain, &res), -ENOEXEC);
		if (len >= SETUP)
			assert_non_null(strstr(f->err, "truncated"));
		free(copy);
	}
	write_file(f, bz.data, bz.len - 1);
	assert_int_equal(load_path(f, &plain, &(struct load_result){ 0 }), -ENOEXEC);
	free(bz.data);
}

/* A payload cut short with a header that does not know. */
static void truncated_payloads_fall_back(void **state)
{
	struct fixture *f = *state;
	size_t i, cut;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		struct bytes bz = make_bzimage(&f->elf, &packers[i]);
		uint32_t len = load32(bz.data + 0x24c);

		for (cut = 1; cut < 12; cut++) {
			struct load_result res;

			put32(bz.data + 0x24c, (uint32_t)(len - len / 12 * cut));
			assert_int_equal(load_memory(f, bz.data, bz.len, &plain, &res), 0);
			assert_false(res.unpacked);
			assert_true(res.note[0]);
		}
		free(bz.data);
	}
}

static void hostile_header_fields_are_told(void **state)
{
	static const struct {
		unsigned int off, len;
		uint64_t value;
		const char *told;
	} cases[] = {
		{ 0x1f4, 4, 0, "syssize" },
		{ 0x1f4, 4, 0xffffffff, "truncated" },
		{ 0x1f1, 1, 255, "truncated" },
		{ 0x206, 2, 0x0209, "too old: boot protocol 2.09" },
		{ 0x211, 1, 0, "zImage" },
		{ 0x230, 4, 0, "kernel_alignment" },
		{ 0x230, 4, 3, "kernel_alignment" },
		{ 0x230, 4, 0x80000000, "kernel_alignment" },
		{ 0x258, 8, 0, "pref_address" },
		{ 0x258, 8, 0x1001000, "pref_address" },
		{ 0x258, 8, 0xffffffffffe00000, "pref_address" },
		{ 0x258, 8, 0x20000000, "needs memory up to" },
		{ 0x260, 4, 0, "init_size" },
		{ 0x260, 4, 0xffffffff, "init_size" },
		{ 0x260, 4, 0x30000000, "needs memory up to" },
		/* These are told in the note: the guest unpacks itself. */
		{ 0x248, 4, 0xffffffff, NULL },
		{ 0x24c, 4, 0xffffffff, NULL },
		{ 0x24c, 4, 0, NULL },
		{ 0x24c, 4, 15, NULL },
	};
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t old[8];
		struct load_result res;
		int rc;

		memcpy(old, bz.data + cases[i].off, 8);
		memcpy(bz.data + cases[i].off, &cases[i].value, cases[i].len);
		rc = load_memory(f, bz.data, bz.len, &plain, &res);
		memcpy(bz.data + cases[i].off, old, 8);
		if (cases[i].told) {
			assert_true(rc < 0);
			assert_non_null(strstr(f->err, cases[i].told));
		} else {
			assert_int_equal(rc, 0);
			assert_false(res.unpacked);
			assert_true(res.note[0]);
		}
	}
	/* Zero setup sectors mean four. */
	bz.data[0x1f1] = 0;
	{
		struct bzimage_info info;

		put32(bz.data + 0x1f4, 0x100);
		assert_int_equal(bzimage_check(bz.data, bz.len, &info, f->err, sizeof(f->err)), 0);
		assert_int_equal(info.setup_size, 5 * 512);
	}
	free(bz.data);
}

/* A small kernel, so that thousands of damaged ones load in seconds. */
static struct bytes make_small_elf(uint32_t seed)
{
	struct bytes b = { calloc(1, PAYLOAD_MAX), 0x8000 };

	assert_non_null(b.data);
	put_ehdr(b.data, 0x8000 - 2 * 64);
	put_phdr(b.data, 0, 0x1000, PREF, 0x2000, 0x2000);
	put_phdr(b.data, 1, 0x4000, PREF + 0x2800, 0x1000, 0x1000);
	put_phdr(b.data, 2, 0x6000, PREF + 0x4000, 0x1000, 0x3000);
	fill(b.data + 0x1000, 0x6000, seed);
	put_list(&b, (uint32_t[]){ 0x18, 0x2900, 0x4000 }, 3);
	put_list(&b, (uint32_t[]){ 0x28 }, 1);
	put_list(&b, (uint32_t[]){ 0x38, 0x48 }, 2);
	return b;
}

static void flip_and_load(struct fixture *f, const uint8_t *data, size_t len, unsigned int cases, uint32_t seed)
{
	uint8_t *copy = malloc(len);
	unsigned int i, k;

	assert_non_null(copy);
	for (i = 0; i < cases; i++) {
		struct load_options opt = { .kaslr = i & 1, .ram_is_zero = true, .random = seed * 0x9e3779b97f4a7c15 };
		struct load_result res;
		/* Half of the damage goes to the headers. */
		size_t span = i & 2 && len > 2048 ? 2048 : len;
		int rc;

		memcpy(copy, data, len);
		for (k = next_random(&seed) % 4 + 1; k; k--)
			copy[next_random(&seed) % span] ^= (uint8_t)(1u << (next_random(&seed) & 7));
		f->err[0] = 0;
		rc = load_memory(f, copy, len, &opt, &res);
		if (rc) {
			assert_true(f->err[0]);
		} else {
			assert_true(res.image.start < res.image.end && res.image.end <= f->ram.size);
			assert_true(res.entry_linux64 || res.entry_pvh);
			assert_true(res.entry_linux64 < f->ram.size && res.entry_pvh < f->ram.size);
			assert_true(res.dirty.start < res.dirty.end && res.dirty.end <= f->ram.size);
		}
	}
	free(copy);
}

static void flipped_bits_do_no_harm(void **state)
{
	struct fixture *f = *state;
	struct bytes elf = make_small_elf(9);
	size_t i;

	for (i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
		struct bytes bz = make_bzimage(&elf, &packers[i]);

		put32(bz.data + 0x260, 0x40000);
		flip_and_load(f, bz.data, bz.len, 600, (uint32_t)i + 1);
		free(bz.data);
	}
	flip_and_load(f, elf.data, elf.len, 2000, 99);
	free(elf.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(payload_larger_than_init_size_is_stopped),
		cmocka_unit_test(truncated_at_every_sector_fails),
		cmocka_unit_test(truncated_payloads_fall_back),
		cmocka_unit_test(hostile_header_fields_are_told),
		cmocka_unit_test(flipped_bits_do_no_harm),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
