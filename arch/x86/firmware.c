/* SPDX-License-Identifier: MIT */
/*
 * Theory of operation
 *
 * OVMF starts at the reset vector, in the state in which KVM creates a vCPU. It learns of the machine from a few
 * registers of Q35's host bridge and from fw_cfg: the memory map, SMBIOS, the order in which to boot, a kernel if there
 * is one, and the ACPI tables with a script that places them.
 *
 * The tables must tell which windows the BARs are in, and it is the firmware that puts them there. So they are built
 * when the firmware selects the script, which it does after that. Their size has to be in the directory from the start;
 * the file of tables is as large as they are with the windows of a direct boot, and some room for numbers that need
 * more bytes.
 */
#include "arch/x86/firmware.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/x86/acpi.h"
#include "arch/x86/layout.h"
#include "devices/display/ramfb.h"
#include "devices/pci/pci.h"
#include "firmware/bootorder.h"
#include "firmware/flash.h"
#include "firmware/fw_cfg.h"
#include "firmware/image.h"
#include "firmware/smbios.h"
#include "firmware/table_loader.h"
#include "vmm/file.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#define E820_RAM      1
#define TABLES_ROOM   1024
#define TABLES_ALIGN  4096
#define SMBIOS_TABLES 32 /* from the anchor, which has 24 bytes */
#define AREA	      (2ULL * FIRMWARE_MAX)

struct firmware {
	struct vm *vm;
	uint8_t *area; /* AREA bytes of address space; the file is at its end, the variables right below. NULL: flash
			  has it */
	size_t vars_size, code_size;
	bool has_template;
	char no_template[PATH_MAX + 64];
	int kernel_fd, initrd_fd;
	struct fw_cfg_item *script, *rsdp, *tables;
};

/* A packed array of these is the file "etc/e820". */
struct e820_entry {
	uint64_t base, size;
	uint32_t type;
} __attribute__((packed));

static int fail(const char *option, const char *path, const char *what, int ret)
{
	log_line("--%s %s: %s: %s", option, path, what, strerror(-ret));
	return ret;
}

/* A regular file and its size. Returns an open file or -errno, told. */
static int open_file(const char *option, const char *path, uint64_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), ret;
	struct stat st;

	if (fd < 0)
		return fail(option, path, "open", -errno);
	if (fstat(fd, &st) < 0) {
		ret = fail(option, path, "fstat", -errno);
	} else if (!S_ISREG(st.st_mode)) {
		log_line("--%s %s: is not a regular file", option, path);
		ret = -EINVAL;
	} else {
		*size = (uint64_t)st.st_size;
		return fd;
	}
	close(fd);
	return ret;
}

/* OVMF_CODE_4M.fd -> OVMF_VARS_4M.fd: the packages of all distributions name them so, in either case. */
static bool template_name(const char *path, char *name, size_t size)
{
	const char *base = strrchr(path, '/'), *code;
	static const char *const from[] = { "CODE", "code" }, *const to[] = { "VARS", "vars" };

	base = base ? base + 1 : path;
	if (snprintf(name, size, "%s", path) >= (int)size)
		return false;
	for (unsigned int i = 0; i < 2; i++) {
		code = strstr(base, from[i]);
		if (code) {
			memcpy(name + (code - path), to[i], 4);
			return true;
		}
	}
	return false;
}

/* Fills the variables with what they are on a new machine, if that can be found. */
static void load_template(struct firmware *f)
{
	const char *path = f->vm->config->firmware;
	char name[PATH_MAX];
	struct stat st;
	int fd;

	if (f->has_template)
		return;
	if (!template_name(path, name, sizeof(name))) {
		snprintf(f->no_template, sizeof(f->no_template),
			 "no file with empty variables belongs to a firmware of that name");
		return;
	}
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		snprintf(f->no_template, sizeof(f->no_template), "%s: %s", name, strerror(errno));
	else if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->vars_size ||
		 file_read(fd, f->area + AREA - f->code_size - f->vars_size, f->vars_size))
		snprintf(f->no_template, sizeof(f->no_template), "%s does not have the %zu bytes that belong to it",
			 name, f->vars_size);
	else
		f->has_template = true;
	if (fd >= 0)
		close(fd);
}

static int parse(struct firmware *f, uint64_t size)
{
	struct firmware_image image;
	char err[256];
	int ret = firmware_image_parse(f->area + AREA - size, size, &image, err, sizeof(err));

	if (!ret && f->vm->config->nvram && !image.vars_size) {
		snprintf(err, sizeof(err), "has no place for variables, so --nvram cannot be used with it");
		ret = -EINVAL;
	}
	if (ret) {
		log_line("--firmware %s: %s", f->vm->config->firmware, err);
		return ret;
	}
	f->code_size = image.code_size;
	f->vars_size = image.vars_size;
	f->has_template = image.code_offset;
	if (f->vars_size)
		load_template(f);
	return 0;
}

static int read_image(struct firmware *f, int fd, uint64_t size)
{
	const char *path = f->vm->config->firmware;
	int ret;

	if (!size || size > FIRMWARE_MAX) {
		log_line("--firmware %s: has %llu bytes; firmware has from 1 to %u", path, (unsigned long long)size,
			 FIRMWARE_MAX);
		return -EINVAL;
	}
	f->area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f->area == MAP_FAILED) {
		f->area = NULL;
		return fail("firmware", path, "memory", -errno);
	}
	ret = file_read(fd, f->area + AREA - size, size);
	return ret ? fail("firmware", path, "read", ret) : parse(f, size);
}

static bool is_elf(int fd)
{
	uint8_t start[8];

	return pread(fd, start, sizeof(start), 0) == sizeof(start) && firmware_image_is_elf(start, sizeof(start));
}

/* What comes by fw_cfg stays in its file until the guest asks for it. */
static int open_kernel(struct firmware *f)
{
	const struct config *config = f->vm->config;
	uint64_t size;

	if (config->kernel) {
		f->kernel_fd = open_file("kernel", config->kernel, &size);
		if (f->kernel_fd < 0)
			return f->kernel_fd;
	}
	if (config->initrd) {
		f->initrd_fd = open_file("initrd", config->initrd, &size);
		if (f->initrd_fd < 0)
			return f->initrd_fd;
	}
	return 0;
}

static int check_elf_options(const struct config *config)
{
	if (config->kernel || config->nvram)
		log_line("--firmware %s: is an ELF file, which takes no --%s", config->firmware,
			 config->kernel ? "kernel" : "nvram");
	return config->kernel || config->nvram ? -EINVAL : 0;
}

int firmware_load(struct vm *vm)
{
	const struct config *config = vm->config;
	uint64_t size = 0;
	struct firmware *f;
	int fd = open_file("firmware", config->firmware, &size), ret;

	if (fd < 0)
		return fd;
	if (is_elf(fd)) {
		close(fd);
		return check_elf_options(config);
	}
	f = calloc(1, sizeof(*f));
	if (!f) {
		close(fd);
		return fail("firmware", config->firmware, "memory", -ENOMEM);
	}
	vm->firmware = f;
	f->vm = vm;
	f->kernel_fd = f->initrd_fd = -1;
	ret = read_image(f, fd, size);
	close(fd);
	return ret ? ret : open_kernel(f);
}

void firmware_free(struct firmware *f)
{
	if (!f)
		return;
	if (f->area)
		munmap(f->area, AREA);
	if (f->kernel_fd >= 0)
		close(f->kernel_fd);
	if (f->initrd_fd >= 0)
		close(f->initrd_fd);
	free(f);
}

static int create_flash(struct firmware *f)
{
	const size_t used = f->vars_size + f->code_size;
	struct flash_contents c = {
		.memory = f->area + AREA - used,
		.vars_size = f->vars_size,
		.code_size = f->code_size,
		.nvram = f->vm->config->nvram,
		.template = f->has_template ? f->area + AREA - used : NULL,
		.no_template = f->no_template,
	};

	munmap(f->area, AREA - used);
	f->area = NULL;
	return flash_create(f->vm, &c);
}

static int add_e820(struct fw_cfg_core *core, const struct memory *mem)
{
	const uint64_t high = mem->size - mem->low_size;
	const struct e820_entry map[2] = {
		{ 0, htole64(mem->low_size), htole32(E820_RAM) },
		{ htole64(RAM_HIGH_BASE), htole64(high), htole32(E820_RAM) },
	};

	return fw_cfg_add_file(core, "etc/e820", map, high ? sizeof(map) : sizeof(map[0]));
}

static int build_smbios(const struct vm *vm, uint64_t address, struct acpi_buf *anchor, struct acpi_buf *tables)
{
	const struct smbios_config config = {
		.cpus = vm->nr_vcpus,
		.low_memory = vm->memory.low_size,
		.high_memory = vm->memory.size - vm->memory.low_size,
		.address = address,
		.version = VMM_VERSION,
	};

	smbios_build(anchor, tables, &config);
	return anchor->error ? anchor->error : tables->error;
}

int firmware_write_smbios(struct vm *vm)
{
	uint8_t *area = ram_ptr(&vm->memory, SMBIOS_GPA, BIOS_END - SMBIOS_GPA);
	struct acpi_buf anchor = { 0 }, tables = { 0 };
	int ret = build_smbios(vm, SMBIOS_GPA + SMBIOS_TABLES, &anchor, &tables);

	if (!ret && (anchor.len > SMBIOS_TABLES || tables.len > BIOS_END - SMBIOS_GPA - SMBIOS_TABLES))
		ret = -ENOSPC;
	if (!ret) {
		memcpy(area, anchor.bytes, anchor.len);
		memcpy(area + SMBIOS_TABLES, tables.bytes, tables.len);
	} else {
		log_line("SMBIOS tables: %s", strerror(-ret));
	}
	acpi_buf_free(&anchor);
	acpi_buf_free(&tables);
	return ret;
}

static int add_smbios(struct fw_cfg_core *core, const struct vm *vm)
{
	struct acpi_buf anchor = { 0 }, tables = { 0 };
	int ret = build_smbios(vm, 0, &anchor, &tables);

	if (!ret)
		ret = fw_cfg_add_file(core, "etc/smbios/smbios-anchor", anchor.bytes, anchor.len);
	if (ret >= 0)
		ret = fw_cfg_add_file(core, "etc/smbios/smbios-tables", tables.bytes, tables.len);
	acpi_buf_free(&anchor);
	acpi_buf_free(&tables);
	return ret;
}

static void fill(struct fw_cfg_item *item, const struct acpi_buf *b)
{
	memset(item->data, 0, item->size);
	memcpy(item->data, b->bytes, b->len < item->size ? b->len : item->size);
}

/* The firmware is about to load the tables. Without them it would go on too: on failure it finds an empty script. */
static void script_selected(void *opaque)
{
	struct firmware *f = opaque;
	struct acpi_tables tables;
	struct acpi_buf script = { 0 };

	memset(f->script->data, 0, f->script->size);
	if (x86_build_acpi(f->vm, &tables))
		return;
	table_loader_build(&script, &tables);
	if (script.error || script.len > f->script->size || tables.files[ACPI_FILE_TABLES].data.len > f->tables->size) {
		log_line("ACPI tables: do not fit what the firmware was told");
	} else {
		fill(f->script, &script);
		fill(f->rsdp, &tables.files[ACPI_FILE_RSDP].data);
		fill(f->tables, &tables.files[ACPI_FILE_TABLES].data);
	}
	acpi_buf_free(&script);
	acpi_free(&tables);
}

/* Reserves files of the right sizes, empty as yet. */
static int add_acpi(struct firmware *f, struct fw_cfg_core *core)
{
	struct acpi_tables tables;
	struct acpi_buf script = { 0 };
	size_t size;
	int key[3], ret = x86_build_acpi(f->vm, &tables);

	if (ret)
		return ret;
	table_loader_build(&script, &tables);
	size = (tables.files[ACPI_FILE_TABLES].data.len + TABLES_ROOM + TABLES_ALIGN - 1) & ~(size_t)(TABLES_ALIGN - 1);
	key[0] = fw_cfg_add_file(core, TABLE_LOADER_SCRIPT, NULL, script.len);
	key[1] = fw_cfg_add_file(core, TABLE_LOADER_RSDP, NULL, tables.files[ACPI_FILE_RSDP].data.len);
	key[2] = fw_cfg_add_file(core, TABLE_LOADER_TABLES, NULL, size);
	ret = script.error;
	acpi_buf_free(&script);
	acpi_free(&tables);
	for (unsigned int i = 0; i < 3; i++)
		if (key[i] < 0)
			return key[i];
	f->script = &core->items[key[0]];
	f->rsdp = &core->items[key[1]];
	f->tables = &core->items[key[2]];
	f->script->selected = script_selected;
	f->script->opaque = f;
	return ret;
}

static int add_bootorder(struct fw_cfg_core *core, struct vm *vm)
{
	char text[BOOTORDER_MAX];
	size_t length = bootorder_build(vm->pci, text, sizeof(text));

	return length ? fw_cfg_add_file(core, "bootorder", text, length + 1) : 0;
}

/* As the firmware wants it: no setup part, the whole file is the image. */
static int add_file_item(struct fw_cfg_core *core, unsigned int size_key, unsigned int data_key, int fd,
			 const char *option, const char *path)
{
	struct stat st;

	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0 || st.st_size < 1 || st.st_size > UINT32_MAX) {
		log_line("--%s %s: must have from 1 byte to 4 GiB", option, path);
		return -EINVAL;
	}
	fw_cfg_add_fd(core, data_key, fd, (uint64_t)st.st_size);
	return fw_cfg_add_number(core, size_key, (uint32_t)st.st_size, 4);
}

static int add_kernel(struct firmware *f, struct fw_cfg_core *core)
{
	const struct config *config = f->vm->config;
	const char *cmdline = config->cmdline ? config->cmdline : "";
	int ret;

	if (!config->kernel)
		return 0;
	ret = add_file_item(core, FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA, f->kernel_fd, "kernel", config->kernel);
	if (!ret)
		ret = fw_cfg_add_number(core, FW_CFG_SETUP_SIZE, 0, 4);
	if (!ret)
		ret = add_file_item(core, FW_CFG_INITRD_SIZE, FW_CFG_INITRD_DATA, f->initrd_fd, "initrd",
				    config->initrd);
	if (!ret)
		ret = fw_cfg_add_number(core, FW_CFG_CMDLINE_SIZE, (uint32_t)strlen(cmdline) + 1, 4);
	return ret ? ret : fw_cfg_add(core, FW_CFG_CMDLINE_DATA, cmdline, strlen(cmdline) + 1);
}

static int add_items(struct firmware *f, struct fw_cfg_core *core)
{
	int ret = fw_cfg_add_number(core, FW_CFG_CPU_COUNT, f->vm->nr_vcpus, 2);

	if (!ret)
		ret = add_e820(core, &f->vm->memory);
	if (ret >= 0)
		ret = add_smbios(core, f->vm);
	if (ret >= 0)
		ret = add_acpi(f, core);
	if (ret >= 0)
		ret = add_bootorder(core, f->vm);
	if (ret >= 0)
		ret = ramfb_create(f->vm, core);
	if (ret >= 0)
		ret = fw_cfg_add_directory(core);
	if (ret < 0)
		log_line("firmware configuration: %s", strerror(-ret));
	return ret < 0 ? ret : add_kernel(f, core);
}

int firmware_create_devices(struct vm *vm)
{
	struct fw_cfg *fw_cfg;
	int ret = create_flash(vm->firmware);

	if (ret)
		return ret;
	fw_cfg = fw_cfg_create(vm);
	return fw_cfg ? add_items(vm->firmware, fw_cfg_items(fw_cfg)) : -ENOMEM;
}
