/* SPDX-License-Identifier: MIT */
/* Firmware files: Debian's own where they are installed, and made ones, whole, cut off and wrong. */
#include <errno.h>
#include <fcntl.h>
#include <lzma.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "firmware/image.h"

#define KIB	1024u
#define HEADER	72
#define CODE	(256 * KIB)
#define VARS	(128 * KIB)
#define SECTION 0x100 /* where a made volume has its compressed section */

static const uint8_t nv_guid[] = { 0x8d, 0x2b, 0xf1, 0xff, 0x96, 0x76, 0x8b, 0x4c,
				   0xa9, 0x85, 0x27, 0x47, 0x07, 0x5b, 0x4f, 0x50 };
static const uint8_t lzma_guid[] = { 0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42,
				     0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf };
static const uint8_t smm_guid[] = { 0xb4, 0x75, 0x0e, 0x6c, 0xb9, 0xb0, 0xd1, 0x44,
				    0x82, 0x10, 0x33, 0x77, 0xd7, 0xb4, 0xe0, 0x66 };

static uint8_t image[FIRMWARE_MAX + 4096];
static char err[256];

static void put_le(uint8_t *to, uint64_t value, unsigned int size)
{
	for (unsigned int i = 0; i < size; i++)
		to[i] = (uint8_t)(value >> (8 * i));
}

static void sum_header(uint8_t *volume)
{
	uint16_t sum = 0;

	put_le(volume + 50, 0, 2);
	for (unsigned int i = 0; i < HEADER; i += 2)
		sum = (uint16_t)(sum + volume[i] + (volume[i + 1] << 8));
	put_le(volume + 50, (uint16_t)-sum, 2);
}

static void put_volume(uint8_t *volume, size_t length, bool nv)
{
	memset(volume, 0, HEADER);
	if (nv)
		memcpy(volume + 16, nv_guid, 16);
	put_le(volume + 32, length, 8);
	memcpy(volume + 40, "_FVH", 4);
	put_le(volume + 48, HEADER, 2);
	sum_header(volume);
}

/* Variables of vars bytes (0: none), then a volume that ends with a jump. */
static size_t make(size_t vars, size_t code)
{
	memset(image, 0xff, sizeof(image));
	if (vars)
		put_volume(image, vars, true);
	put_volume(image + vars, code, false);
	memcpy(image + vars + code - 16, "\x90\x90\xe9\x00\x00", 5);
	return vars + code;
}

static int parse(size_t size, struct firmware_image *out)
{
	/* A copy of its own size, so that a sanitizer sees each byte too far. */
	uint8_t *copy = malloc(size ? size : 1);
	int ret;

	assert_non_null(copy);
	memcpy(copy, image, size);
	err[0] = '\0';
	ret = firmware_image_parse(copy, size, out, err, sizeof(err));
	assert_true(ret == 0 || (ret == -EINVAL && err[0]));
	free(copy);
	return ret;
}

static void refused(size_t size, const char *why)
{
	struct firmware_image out;

	assert_int_equal(parse(size, &out), -EINVAL);
	if (!strstr(err, why))
		fail_msg("'%s' does not say '%s'", err, why);
}

static void test_made(void **state)
{
	struct firmware_image out;

	(void)state;
	assert_int_equal(parse(make(0, CODE), &out), 0);
	assert_int_equal(out.code_offset, 0);
	assert_int_equal(out.code_size, CODE);
	assert_int_equal(out.vars_size, 0); /* a power of two leaves no room */
	assert_int_equal(parse(make(0, CODE - 68 * KIB), &out), 0);
	assert_int_equal(out.vars_size, 68 * KIB);
	assert_int_equal(parse(make(VARS, CODE), &out), 0);
	assert_int_equal(out.code_offset, VARS);
	assert_int_equal(out.code_size, CODE);
	assert_int_equal(out.vars_size, VARS);
	assert_int_equal(parse(make(0, FIRMWARE_MAX), &out), 0);
}

static void test_refused(void **state)
{
	size_t size;

	(void)state;
	refused(0, "is empty");
	make(0, FIRMWARE_MAX + 4096);
	refused(FIRMWARE_MAX + 4096, "larger than 8 MiB");
	memset(image, 0, sizeof(image));
	refused(CODE, "is not UEFI firmware");
	refused(1, "is not UEFI firmware");
	make(0, CODE);
	refused(CODE - 1, "is cut off");
	refused(CODE + 4096, "no firmware volume at offset 0x40000");
	refused(HEADER, "is cut off");
	size = make(VARS, CODE);
	refused(VARS, "holds only variables");
	image[VARS + 60] ^= 1;
	refused(size, "no firmware volume at offset 0x20000");
	make(0, 32 * KIB);
	refused(32 * KIB, "nothing at its end");
	make(0, CODE);
	memset(image + CODE - 16, 0xff, 16);
	refused(CODE, "nothing at its end");
	put_volume(image, 0, false);
	refused(CODE, "volume of 0x0 bytes");
	put_volume(image, 5000, false);
	refused(CODE, "volume of 0x1388 bytes");
	put_volume(image, UINT64_MAX - 4095, false);
	refused(CODE, "is cut off");
	put_volume(image, CODE, false);
	put_le(image + 48, 0xfffe, 2);
	sum_header(image);
	refused(CODE, "is not UEFI firmware");
	memset(image, 0, sizeof(image));
	for (unsigned int i = 0; i < 65; i++)
		put_volume(image + i * 4096, 4096, false);
	refused(65 * 4096, "no firmware volume at offset 0x40000");
}

/* What is compressed: a volume with an extended header, and files from FILES on. */
#define VOLUME 0x80u
#define FILES  (VOLUME + 0x78)

static uint8_t plain[64 * KIB];

static size_t put_file(size_t at, const uint8_t *guid, size_t size)
{
	memcpy(plain + at, guid, 16);
	put_le(plain + at + 20, size, 3);
	return at + (size + 7) / 8 * 8;
}

/* With a file of that GUID behind two others. Returns where that file is. */
static size_t make_plain(const uint8_t *guid)
{
	static const uint8_t other[16] = { 1 };
	size_t at;

	memset(plain, 0xff, sizeof(plain));
	memset(plain, 0, FILES);
	memcpy(plain + VOLUME + 40, "_FVH", 4);
	put_le(plain + VOLUME + 32, 64 * KIB - VOLUME, 8);
	put_le(plain + VOLUME + 48, 72, 2);
	put_le(plain + VOLUME + 52, 0x60, 2);
	put_le(plain + VOLUME + 0x60 + 16, 20, 4);
	at = put_file(put_file(FILES, other, 24), other, 40001);
	put_file(at, guid ? guid : other, 1000);
	return at;
}

/* A volume with plain in an LZMA section. */
static size_t make_compressed(void)
{
	lzma_options_lzma options;
	lzma_stream s = LZMA_STREAM_INIT;

	make(0, CODE);
	memcpy(image + SECTION + 4, lzma_guid, 16);
	put_le(image + SECTION + 20, 24, 2);
	assert_false(lzma_lzma_preset(&options, 1));
	assert_int_equal(lzma_alone_encoder(&s, &options), LZMA_OK);
	s.next_in = plain;
	s.avail_in = sizeof(plain);
	s.next_out = image + SECTION + 24;
	s.avail_out = CODE / 2;
	assert_int_equal(lzma_code(&s, LZMA_FINISH), LZMA_STREAM_END);
	lzma_end(&s);
	return CODE;
}

static void test_smm(void **state)
{
	struct firmware_image out;
	size_t at;

	(void)state;
	make_plain(NULL);
	assert_int_equal(parse(make_compressed(), &out), 0);
	at = make_plain(smm_guid);
	refused(make_compressed(), "System Management Mode");
	make(0, CODE);
	memcpy(image + 5000, smm_guid, 16);
	refused(CODE, "System Management Mode");
	/* A stream that is nonsense, a section that points anywhere: not known to want it. */
	make_compressed();
	memset(image + SECTION + 24, 0xff, 13);
	assert_int_equal(parse(CODE, &out), 0);
	make_compressed();
	put_le(image + SECTION + 20, 0xffff, 2);
	assert_int_equal(parse(CODE, &out), 0);
	make(0, CODE);
	memcpy(image + CODE - 16, lzma_guid, 16);
	assert_int_equal(parse(CODE, &out), 0);
	/* No extended header; lengths that lead nowhere; the module as the last thing that there is. */
	put_le(plain + VOLUME + 52, 0, 2);
	put_file(VOLUME + 72, smm_guid, 24);
	refused(make_compressed(), "System Management Mode");
	put_le(plain + VOLUME + 52, 0xfff0, 2);
	refused(make_compressed(), "System Management Mode");
	for (unsigned int size = 0; size < 24; size += 23) {
		make_plain(smm_guid);
		put_le(plain + FILES + 20, size, 3);
		assert_int_equal(parse(make_compressed(), &out), 0);
	}
	make_plain(smm_guid);
	put_le(plain + FILES + 20, 0xffffff, 3);
	assert_int_equal(parse(make_compressed(), &out), 0);
	make_plain(smm_guid);
	put_le(plain + VOLUME + 0x60 + 16, UINT32_MAX, 4);
	assert_int_equal(parse(make_compressed(), &out), 0);
	make_plain(NULL);
	put_le(plain + at + 20, 64 * KIB - 24 - at, 3);
	put_file(64 * KIB - 24, smm_guid, 24);
	refused(make_compressed(), "System Management Mode");
}

static size_t load(const char *name)
{
	char path[128];
	struct stat st;
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "/usr/share/%s", name);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	assert_int_equal(fstat(fd, &st), 0);
	n = read(fd, image, sizeof(image));
	close(fd);
	assert_int_equal(n, st.st_size);
	return (size_t)n;
}

/* The builds of Debian 12. */
static void test_debian(void **state)
{
	static const struct {
		const char *name;
		size_t code, vars, offset;
	} builds[] = {
		{ "OVMF/OVMF_CODE.fd", 1966080, 131072, 0 },
		{ "OVMF/OVMF_CODE_4M.fd", 3653632, 540672, 0 },
		{ "ovmf/OVMF.fd", 1966080, 131072, 131072 },
	};
	struct firmware_image out;

	(void)state;
	if (!load(builds[0].name)) {
		print_message("the package ovmf is not installed\n");
		skip();
	}
	for (unsigned int i = 0; i < 3; i++) {
		size_t size = load(builds[i].name);

		assert_int_equal(parse(size, &out), 0);
		assert_int_equal(out.code_size, builds[i].code);
		assert_int_equal(out.vars_size, builds[i].vars);
		assert_int_equal(out.code_offset, builds[i].offset);
		for (size_t cut = 1; cut < size; cut += 99991)
			assert_int_equal(parse(size - cut, &out), -EINVAL);
	}
	refused(load("OVMF/OVMF_CODE_4M.secboot.fd"), "System Management Mode");
	refused(load("OVMF/OVMF_CODE.secboot.fd"), "System Management Mode");
	refused(load("OVMF/OVMF_VARS_4M.fd"), "holds only variables");
}

static void test_elf(void **state)
{
	(void)state;
	assert_true(firmware_image_is_elf((const uint8_t *)"\177ELF\2", 5));
	assert_false(firmware_image_is_elf((const uint8_t *)"\177ELF", 4));
	assert_false(firmware_image_is_elf((const uint8_t *)"\177ELS\2", 5));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_made),   cmocka_unit_test(test_refused), cmocka_unit_test(test_smm),
		cmocka_unit_test(test_debian), cmocka_unit_test(test_elf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
