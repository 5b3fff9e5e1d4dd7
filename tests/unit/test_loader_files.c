/* SPDX-License-Identifier: MIT */
/*
 * The loader's other files: a vmlinux, good and damaged, files that are no kernel, one that shrinks while it is read,
 * and what is placed beside the kernel.
 */
#include "loader_kernels.h"

#include <signal.h>

static struct bytes make_vmlinux(const struct fixture *f, uint32_t pvh)
{
	struct bytes b = { malloc(PAYLOAD_MAX), ELF_LEN };
	Elf64_Phdr note = { .p_type = PT_NOTE, .p_offset = TEXT_OFF + 0x1000, .p_filesz = 20 + 20 };
	uint8_t *n;

	assert_non_null(b.data);
	memcpy(b.data, f->elf.data, ELF_LEN);
	n = b.data + TEXT_OFF + 0x1000;
	put16(b.data + offsetof(Elf64_Ehdr, e_phnum), 4);
	memcpy(b.data + 64 + 3 * sizeof(note), &note, sizeof(note));
	/* A note of another owner first */
	memcpy(n, "\4\0\0\0\4\0\0\0\x12\0\0\0GNU\0\1\2\3\4", 20);
	memcpy(n + 20, "\4\0\0\0\4\0\0\0\x12\0\0\0Xen\0", 16);
	put32(n + 36, pvh);
	return b;
}

static void vmlinux_loads(void **state)
{
	struct fixture *f = *state;
	struct bytes elf = make_vmlinux(f, PREF + 0x50);
	struct bytes saved = f->elf;
	struct load_result res;

	reset_ram(f);
	assert_int_equal(load_bytes(f, &elf, &plain, &res), 0);
	assert_string_equal(res.format, "ELF");
	assert_true(res.is_linux);
	assert_int_equal(res.entry_linux64, PREF + 0x40);
	assert_int_equal(res.entry_pvh, PREF + 0x50);
	assert_int_equal(res.image.start, PREF);
	assert_int_equal(res.image.end, PREF + INIT_REL + INIT_LEN + BSS_LEN);
	f->elf = elf;
	check_image(f, PREF);
	check_dirty(f, &res);
	memset(f->ram.host, 0xa5, f->ram.size);
	assert_int_equal(load_path(f, &(struct load_options){ .ram_is_zero = false }, &res), 0);
	check_image(f, PREF);
	f->elf = saved;
	/* A virtual entry means the same; a PVH entry outside the image is none. */
	put64(elf.data + offsetof(Elf64_Ehdr, e_entry), LINUX_KERNEL_MAP + PREF + 0x40);
	put32(elf.data + TEXT_OFF + 0x1000 + 36, 0x100);
	assert_int_equal(load_bytes(f, &elf, &plain, &res), 0);
	assert_int_equal(res.entry_linux64, PREF + 0x40);
	assert_int_equal(res.entry_pvh, 0);
	free(elf.data);
}

static void damaged_vmlinux_is_told(void **state)
{
	static const struct {
		unsigned int phdr, field;
		uint64_t value;
		const char *told;
	} cases[] = {
		{ 0, offsetof(Elf64_Phdr, p_offset), 0xffffffffffffff00, "truncated" },
		{ 2, offsetof(Elf64_Phdr, p_offset), ELF_LEN - 8, "truncated" },
		{ 0, offsetof(Elf64_Phdr, p_filesz), TEXT_LEN + 1, "larger in the file" },
		{ 0, offsetof(Elf64_Phdr, p_memsz), 0xffffffffffffff00, "low memory ends" },
		{ 1, offsetof(Elf64_Phdr, p_paddr), RAM_SIZE - 4096, "low memory ends" },
		{ 1, offsetof(Elf64_Phdr, p_paddr), 0xfffffffffffff000, "low memory ends" },
		{ 1, offsetof(Elf64_Phdr, p_paddr), 0x8000, "below 1 MiB" },
		{ 1, offsetof(Elf64_Phdr, p_paddr), PREF + 0x1000, "overlap" },
	};
	struct fixture *f = *state;
	struct load_result res;
	size_t i, len;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct bytes elf = make_vmlinux(f, PREF + 0x50);

		put64(elf.data + 64 + cases[i].phdr * sizeof(Elf64_Phdr) + cases[i].field, cases[i].value);
		assert_true(load_memory(f, elf.data, elf.len, &plain, &res) < 0);
		assert_non_null(strstr(f->err, cases[i].told));
		free(elf.data);
	}
	for (len = 4; len < ELF_LEN - 128; len += len < 4096 ? 1 : 65536) {
		uint8_t *copy = malloc(len);

		assert_non_null(copy);
		memcpy(copy, f->elf.data, len);
		assert_true(load_memory(f, copy, len, &plain, &res) < 0);
		assert_non_null(strstr(f->err, "truncated"));
		free(copy);
	}
}

static void other_files_are_named(void **state)
{
	static const struct {
		unsigned int off, len;
		const char *bytes, *told;
	} cases[] = {
		{ 0, 3, "\x1f\x8b\x08", "gunzip" },
		{ 0, 6,
		  "\xfd"
		  "7zXZ\0",
		  "unxz" },
		{ 0, 4, "\x28\xb5\x2f\xfd", "unzstd" },
		{ 0, 20,
		  "\x7f"
		  "ELF\2\1\1\0\0\0\0\0\0\0\0\0\2\0\xb7\0",
		  "ARM64" },
		{ 0, 20,
		  "\x7f"
		  "ELF\1\1\1\0\0\0\0\0\0\0\0\0\2\0\3\0",
		  "32-bit" },
		{ 0, 20,
		  "\x7f"
		  "ELF\2\2\1\0\0\0\0\0\0\0\0\0\0\2\0\x16",
		  "big-endian" },
		{ 0, 20,
		  "\x7f"
		  "ELF\2\1\1\0\0\0\0\0\0\0\0\0\1\0\x3e\0",
		  "kernel module" },
		{ 0x38, 4, "ARM\x64", "ARM64 kernel Image" },
		{ 0, 2, "MZ", "EFI" },
		{ 0, 4, "QFI\xfb", "qcow2" },
		{ 0x8001, 5, "CD001", "ISO 9660" },
		{ 0x1fe, 2, "\x55\xaa", "boot sector" },
		{ 0, 6, "070701", "--initrd" },
		{ 0, 4, "\x27\x05\x19\x56", "uImage" },
	};
	struct fixture *f = *state;
	struct kernel_image img;
	uint8_t *buf = malloc(0x9000);
	size_t i;

	assert_non_null(buf);
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(buf, 0, 0x9000);
		memcpy(buf + cases[i].off, cases[i].bytes, cases[i].len);
		write_file(f, buf, 0x9000);
		assert_int_equal(loader_open(&img, f->path, f->err, sizeof(f->err)), -ENOEXEC);
		assert_non_null(strstr(f->err, cases[i].told));
	}
	write_file(f, (const uint8_t *)"hello\n", 6);
	assert_int_equal(loader_open(&img, f->path, f->err, sizeof(f->err)), -ENOEXEC);
	assert_non_null(strstr(f->err, "text file"));
	write_file(f, buf, 0);
	assert_int_equal(loader_open(&img, f->path, f->err, sizeof(f->err)), -ENOEXEC);
	assert_string_equal(f->err, "is an empty file");
	assert_int_equal(loader_open(&img, "/", f->err, sizeof(f->err)), -EISDIR);
	assert_int_equal(loader_open(&img, "/dev/null", f->err, sizeof(f->err)), -EINVAL);
	assert_int_equal(loader_open(&img, "/nonexistent/kernel", f->err, sizeof(f->err)), -ENOENT);
	assert_string_equal(f->err, "open: No such file or directory");
	free(buf);
}

/* The file shrinks between open and load: an error, not SIGBUS. */
static void shrinking_file_is_an_error(void **state)
{
	struct fixture *f = *state;
	struct bytes bz = make_bzimage(&f->elf, lz4);
	struct sigaction before, after;
	struct kernel_image img;
	struct load_result res;

	sigaction(SIGBUS, NULL, &before);
	write_file(f, bz.data, bz.len);
	assert_int_equal(loader_open(&img, f->path, f->err, sizeof(f->err)), 0);
	assert_int_equal(truncate(f->path, 8192), 0);
	assert_int_equal(loader_load(&img, &f->ram, &plain, &res, f->err, sizeof(f->err)), -EIO);
	assert_non_null(strstr(f->err, "shrank"));
	loader_close(&img);
	sigaction(SIGBUS, NULL, &after);
	assert_true(before.sa_handler == after.sa_handler);
	free(bz.data);
}

/* loader_place_file() for a path. */
static int place_path(const struct ram_view *ram, const char *path, uint64_t max, uint64_t align,
		      const struct gpa_range *avoid, struct gpa_range *where, char *err, size_t errlen)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret;

	assert_true(fd >= 0);
	ret = loader_place_file(ram, fd, max, align, avoid, where, err, errlen);
	close(fd);
	return ret;
}

static void files_are_placed_high(void **state)
{
	struct fixture *f = *state;
	const struct gpa_range kernel = { 16 * MIB, 28 * MIB };
	struct gpa_range at;
	uint8_t *data = malloc(5 * MIB);
	char fd_path[32];
	int fds[2];

	assert_non_null(data);
	fill(data, 5 * MIB, 77);
	write_file(f, data, 5 * MIB - 3);
	assert_int_equal(place_path(&f->ram, f->path, 0x7fffffff, 4096, &kernel, &at, f->err, 256), 0);
	assert_int_equal(at.start, RAM_SIZE - 5 * MIB);
	assert_int_equal(at.end - at.start, 5 * MIB - 3);
	assert_memory_equal(f->ram.host + at.start, data, 5 * MIB - 3);
	/* A limit inside the kernel puts it below the kernel. */
	assert_int_equal(place_path(&f->ram, f->path, 20 * MIB, 4096, &kernel, &at, f->err, 256), 0);
	assert_int_equal(at.start, 11 * MIB);
	/* The last byte may be at the limit. */
	assert_int_equal(place_path(&f->ram, f->path, 40 * MIB - 4, 1, &kernel, &at, f->err, 256), 0);
	assert_int_equal(at.end, 40 * MIB - 3);
	assert_int_equal(place_path(&f->ram, f->path, 5 * MIB, 4096, &kernel, &at, f->err, 256), -ENOMEM);
	assert_non_null(strstr(f->err, "too large"));
	assert_int_equal(place_path(&f->ram, "/dev/zero", 0x7fffffff, 4096, &kernel, &at, f->err, 256), -ENOMEM);
	write_file(f, data, 0);
	assert_int_equal(place_path(&f->ram, f->path, 0x7fffffff, 4096, &kernel, &at, f->err, 256), -EINVAL);
	assert_string_equal(f->err, "is empty");
	assert_int_equal(place_path(&f->ram, "/", 0x7fffffff, 4096, &kernel, &at, f->err, 256), -EISDIR);
	/* A pipe */
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], data, 30000), 30000);
	close(fds[1]);
	snprintf(fd_path, sizeof(fd_path), "/dev/fd/%d", fds[0]);
	assert_int_equal(place_path(&f->ram, fd_path, 0x7fffffff, 4096, &kernel, &at, f->err, 256), 0);
	assert_int_equal(at.start, RAM_SIZE - 32768);
	assert_int_equal(at.end - at.start, 30000);
	assert_memory_equal(f->ram.host + at.start, data, 30000);
	close(fds[0]);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vmlinux_loads),	 cmocka_unit_test(damaged_vmlinux_is_told),
		cmocka_unit_test(other_files_are_named), cmocka_unit_test(shrinking_file_is_an_error),
		cmocka_unit_test(files_are_placed_high),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
