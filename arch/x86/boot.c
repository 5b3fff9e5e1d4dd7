/* SPDX-License-Identifier: MIT */
/*
 * Direct boot: the kernel, its initrd and command line go into RAM, and what the boot protocol wants beside them.
 * Sources: Documentation/arch/x86/boot.rst and zero-page.rst of Linux; Xen's docs/misc/pvh.pandoc.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "arch/x86/acpi.h"
#include "arch/x86/firmware.h"
#include "arch/x86/layout.h"
#include "arch/x86/loader/loader.h"
#include "arch/x86/pvh.h"
#include "arch/x86/x86.h"
#include "vmm/fdt.h"
#include "vmm/log.h"
#include "vmm/options.h"
#include "vmm/vm.h"

#define E820_RAM	 1
#define E820_RESERVED	 2
#define SETUP_RNG_SEED	 9 /* Linux 6.2's asm/bootparam.h; 6.1's does not name it yet */
#define SEED_SIZE	 32
#define INITRD_ALIGN	 4096
#define LOADER_UNDEFINED 0xff
#define CONSOLE_MAX	 64

/* What one boot puts together. */
struct x86_boot {
	struct vm *vm;
	struct ram_view ram;
	struct kernel_image image;
	bool image_open;
	int initrd_fd;
	struct load_result kernel;
	struct gpa_range initrd;
	uint64_t rsdp, cmdline;
	struct {
		uint64_t kaslr;
		uint8_t seed[SEED_SIZE];
	} random;
};

struct memory_range {
	uint64_t base, size;
	uint32_t type;
};

static unsigned int memory_map(const struct vm *vm, struct memory_range map[8])
{
	const struct memory *mem = &vm->memory;
	unsigned int n = 0;

	map[n++] = (struct memory_range){ 0, LOW_RAM_END, E820_RAM };
	map[n++] = (struct memory_range){ LOW_RAM_END, 0xa0000 - LOW_RAM_END, E820_RESERVED };
	map[n++] = (struct memory_range){ ACPI_GPA, BIOS_END - ACPI_GPA, E820_RESERVED };
	map[n++] = (struct memory_range){ BIOS_END, mem->low_size - BIOS_END, E820_RAM };
	map[n++] = (struct memory_range){ ECAM_BASE, ECAM_SIZE, E820_RESERVED };
	if (mem->size > mem->low_size)
		map[n++] = (struct memory_range){ RAM_HIGH_BASE, mem->size - mem->low_size, E820_RAM };
	return n;
}

/* A parameter of the command line, by its full name or, ending in "=", by its start. */
static bool has_parameter(const char *cmdline, const char *name)
{
	size_t length = strlen(name);
	bool prefix = name[length - 1] == '=';

	for (const char *at = cmdline; (at = strstr(at, name)); at += length)
		if ((at == cmdline || at[-1] == ' ') && (prefix || !at[length] || at[length] == ' '))
			return true;
	return false;
}

bool x86_names_console(const char *cmdline)
{
	return cmdline && has_parameter(cmdline, "console=");
}

/* The user's command line; a kernel that is told of no console gets the fast one (devices/legacy/uart.c). */
static int write_cmdline(struct x86_boot *b)
{
	const char *given = b->vm->config->cmdline ? b->vm->config->cmdline : "";
	char *out = ram_ptr(&b->vm->memory, CMDLINE_GPA, CMDLINE_MAX + 1);
	char console[CONSOLE_MAX] = "";
	size_t length;

	if (b->kernel.is_linux && !x86_names_console(given))
		snprintf(console, sizeof(console), "%sconsole=uart8250,mmio,0x%llx", *given ? " " : "", UART_MMIO_BASE);
	length = strlen(given) + strlen(console);
	if (length > b->kernel.cmdline_max || length > CMDLINE_MAX) {
		log_line("--cmdline: %zu bytes with vmm's console; this kernel takes %u", length,
			 b->kernel.cmdline_max);
		return -EINVAL;
	}
	memcpy(out, given, strlen(given) + 1);
	memcpy(out + strlen(given), console, strlen(console) + 1);
	b->cmdline = CMDLINE_GPA;
	return 0;
}

/* A firmware that is an ELF file boots as a kernel does. */
static const char *kernel_path(const struct config *config, const char **option)
{
	*option = config->firmware ? "firmware" : "kernel";
	return config->firmware ? config->firmware : config->kernel;
}

static int open_kernel(struct x86_boot *b)
{
	const char *option, *path = kernel_path(b->vm->config, &option);
	char err[256];
	int ret = loader_open(&b->image, path, err, sizeof(err));

	if (ret)
		log_line("--%s %s: %s", option, path, err);
	b->image_open = !ret;
	if (!ret && b->vm->config->boot == BOOT_GUEST && b->image.kind == KERNEL_ELF64) {
		log_line("--boot guest: %s is an ELF file, which has no decompressor of its own", path);
		ret = -EINVAL;
	}
	return ret;
}

static int load_kernel(struct x86_boot *b, bool ram_is_zero)
{
	const struct config *config = b->vm->config;
	struct load_options options = {
		.kaslr = !has_parameter(config->cmdline ? config->cmdline : "", "nokaslr"),
		.guest_unpack = config->boot == BOOT_GUEST,
		.ram_is_zero = ram_is_zero,
		.random = b->random.kaslr,
		.top = b->initrd.start,
	};
	const char *option, *path = kernel_path(config, &option);
	char err[256];
	int ret = loader_load(&b->image, &b->ram, &options, &b->kernel, err, sizeof(err));

	if (ret == -ENOMEM && b->initrd.start)
		log_line("--initrd %s: is too large beside the kernel, which %s", config->initrd, err);
	else if (ret)
		log_line("--%s %s: %s", option, path, err);
	if (ret)
		return ret;
	if (config->firmware && (b->kernel.is_linux || !b->kernel.entry_pvh)) {
		log_line("--firmware %s: is an ELF file, but no firmware with a PVH entry", path);
		return -EINVAL;
	}
	if (b->kernel.note[0])
		log_line("--%s %s: %s", option, path, b->kernel.note);
	if (config->boot == BOOT_HOST && b->image.kind == KERNEL_BZIMAGE && !b->kernel.unpacked) {
		log_line("--boot host: %s cannot be unpacked here", config->kernel);
		return -EINVAL;
	}
	return 0;
}

/* Before the kernel, which then stays below it: its place is random, and must not cut the room for both in two. */
static int load_initrd(struct x86_boot *b, uint64_t max)
{
	const char *path = b->vm->config->initrd;
	char err[256];
	int ret;

	if (!path)
		return 0;
	if (b->initrd_fd < 0)
		b->initrd_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (b->initrd_fd < 0) {
		ret = -errno;
		log_line("--initrd %s: open: %s", path, strerror(-ret));
		return ret;
	}
	ret = loader_place_file(&b->ram, b->initrd_fd, max, INITRD_ALIGN, &b->kernel.image, &b->initrd, err,
				sizeof(err));
	if (ret)
		log_line("--initrd %s: %s", path, err);
	return ret;
}

/* Old kernels want it lower than the end of low RAM: it moves, now that this is known. */
static int lower_initrd(struct x86_boot *b)
{
	const uint64_t size = b->initrd.end - b->initrd.start;
	const uint64_t mask = ~(uint64_t)(INITRD_ALIGN - 1);
	uint64_t to;

	if (!size || b->initrd.end - 1 <= b->kernel.initrd_max)
		return 0;
	to = b->kernel.initrd_max + 1 >= size ? (b->kernel.initrd_max + 1 - size) & mask : 0;
	if (to < b->kernel.image.end) {
		log_line("--initrd %s: is too large: this kernel wants it between 0x%llx and 0x%llx",
			 b->vm->config->initrd, (unsigned long long)b->kernel.image.end,
			 (unsigned long long)b->kernel.initrd_max);
		return -ENOMEM;
	}
	memmove(b->ram.host + to, b->ram.host + b->initrd.start, size);
	b->initrd = (struct gpa_range){ to, to + size };
	return 0;
}

static void write_gdt(struct vm *vm, bool pvh)
{
	uint64_t *gdt = ram_ptr(&vm->memory, GDT_GPA, 6 * 8);

	gdt[0] = gdt[1] = 0;
	gdt[2] = pvh ? 0x00cf9b000000ffffULL : 0x00af9b000000ffffULL;
	gdt[3] = 0x00cf93000000ffffULL;
	gdt[4] = 0x00008b0000000067ULL;
	gdt[5] = 0;
}

/* The first 4 GiB onto themselves, in 2 MiB pages: any CPU has those. */
static uint64_t write_page_tables(struct vm *vm)
{
	uint64_t *table = ram_ptr(&vm->memory, PAGE_TABLES_GPA, 6 * 4096);
	const uint64_t present_writable = 3, large = 0x80;

	memset(table, 0, 2 * 4096);
	table[0] = (PAGE_TABLES_GPA + 4096) | present_writable;
	for (uint64_t i = 0; i < 4; i++)
		table[512 + i] = (PAGE_TABLES_GPA + (2 + i) * 4096) | present_writable;
	for (uint64_t i = 0; i < 4 * 512; i++)
		table[2 * 512 + i] = i << 21 | large | present_writable;
	return PAGE_TABLES_GPA;
}

/* Chains a block of setup_data in front of the others. Returns its payload. */
static void *add_setup_data(struct x86_boot *b, struct boot_params *bp, uint64_t gpa, uint32_t type, uint32_t length)
{
	struct setup_data *data = ram_ptr(&b->vm->memory, gpa, sizeof(*data) + length);

	data->next = bp->hdr.setup_data;
	data->type = type;
	data->len = length;
	bp->hdr.setup_data = gpa;
	return data->data;
}

/* The device tree is for guests without an ACPI interpreter; a Linux built for both would mix the two. */
static int add_fdt(struct x86_boot *b, struct boot_params *bp)
{
	const size_t head = sizeof(struct setup_data);
	void *where = ram_ptr(&b->vm->memory, FDT_GPA + head, FDT_MAX - head);
	int size = machine_fdt(b->vm, where, FDT_MAX - (int)head);

	if (size < 0)
		return size;
	add_setup_data(b, bp, FDT_GPA, SETUP_DTB, (uint32_t)size);
	return 0;
}

static int write_boot_params(struct x86_boot *b)
{
	struct boot_params *bp = ram_ptr(&b->vm->memory, BOOT_PARAMS_GPA, sizeof(*bp));
	struct memory_range map[8];
	unsigned int n = memory_map(b->vm, map);

	memset(bp, 0, sizeof(*bp));
	memcpy(&bp->hdr, b->kernel.setup_header,
	       b->kernel.setup_header_len < sizeof(bp->hdr) ? b->kernel.setup_header_len : sizeof(bp->hdr));
	bp->hdr.type_of_loader = LOADER_UNDEFINED;
	bp->hdr.loadflags |= LOADED_HIGH | (b->kernel.kaslr ? KASLR_FLAG : 0);
	bp->hdr.code32_start = (uint32_t)b->kernel.image.start;
	bp->hdr.cmd_line_ptr = (uint32_t)b->cmdline;
	bp->hdr.ramdisk_image = (uint32_t)b->initrd.start;
	bp->hdr.ramdisk_size = (uint32_t)(b->initrd.end - b->initrd.start);
	bp->hdr.setup_data = 0;
	bp->acpi_rsdp_addr = b->rsdp;
	for (unsigned int i = 0; i < n; i++) {
		bp->e820_table[i].addr = map[i].base;
		bp->e820_table[i].size = map[i].size;
		bp->e820_table[i].type = map[i].type;
	}
	bp->e820_entries = (__u8)n;
	memcpy(add_setup_data(b, bp, SETUP_SEED_GPA, SETUP_RNG_SEED, SEED_SIZE), b->random.seed, SEED_SIZE);
	return b->kernel.is_linux ? 0 : add_fdt(b, bp);
}

static void write_pvh_info(struct x86_boot *b)
{
	struct {
		struct pvh_start_info info;
		struct pvh_module initrd;
		struct pvh_memmap_entry map[8];
	} *page = ram_ptr(&b->vm->memory, PVH_INFO_GPA, sizeof(*page));
	struct memory_range map[8];
	unsigned int n = memory_map(b->vm, map);
	const uint64_t base = PVH_INFO_GPA;

	memset(page, 0, sizeof(*page));
	page->info = (struct pvh_start_info){
		.magic = PVH_MAGIC,
		.version = 1,
		.cmdline = b->cmdline,
		.rsdp = b->rsdp,
		.memmap = base + offsetof(typeof(*page), map),
		.memmap_entries = n,
	};
	if (b->initrd.end > b->initrd.start) {
		page->info.nr_modules = 1;
		page->info.modules = base + offsetof(typeof(*page), initrd);
		page->initrd.address = b->initrd.start;
		page->initrd.size = b->initrd.end - b->initrd.start;
	}
	for (unsigned int i = 0; i < n; i++) {
		page->map[i].address = map[i].base;
		page->map[i].size = map[i].size;
		page->map[i].type = map[i].type;
	}
}

static int choose_entry(struct x86_boot *b, struct x86_entry *entry)
{
	const struct config *config = b->vm->config;
	const struct load_result *k = &b->kernel;

	memset(entry, 0, sizeof(*entry));
	entry->gdt = GDT_GPA;
	if (config->boot == BOOT_PVH && !k->entry_pvh) {
		log_line("--boot pvh: %s has no PVH entry note", config->kernel);
		return -EINVAL;
	}
	/* What is not Linux and has a PVH note means that entry; its ELF entry may be for any mode. */
	entry->pvh = config->boot == BOOT_PVH || (k->entry_pvh && !k->is_linux) || !k->entry_linux64;
	entry->rip = entry->pvh ? k->entry_pvh : k->entry_linux64;
	entry->info = entry->pvh ? PVH_INFO_GPA : BOOT_PARAMS_GPA;
	return 0;
}

struct x86_boot *x86_boot_load(struct vm *vm, bool ram_is_zero)
{
	struct x86_boot *b = calloc(1, sizeof(*b));
	int ret;

	if (!b) {
		log_line("--kernel: %s", strerror(ENOMEM));
		return NULL;
	}
	b->vm = vm;
	b->initrd_fd = -1;
	b->ram = (struct ram_view){ vm->memory.host, vm->memory.low_size };
	ret = getrandom(&b->random, sizeof(b->random), 0) == sizeof(b->random) ? 0 : -EIO;
	if (ret)
		log_line("getrandom: %s", strerror(errno));
	if (!ret)
		ret = open_kernel(b);
	if (!ret)
		ret = load_initrd(b, b->ram.size - 1);
	if (!ret)
		ret = load_kernel(b, ram_is_zero);
	if (!ret)
		ret = lower_initrd(b);
	if (!ret)
		return b;
	x86_boot_free(b);
	return NULL;
}

void x86_boot_free(struct x86_boot *b)
{
	if (!b)
		return;
	if (b->image_open)
		loader_close(&b->image);
	if (b->initrd_fd >= 0)
		close(b->initrd_fd);
	free(b);
}

bool x86_boot_is_linux(const struct x86_boot *b)
{
	return b->kernel.is_linux;
}

int x86_boot_finish(struct x86_boot *b, struct x86_entry *entry)
{
	int ret = write_cmdline(b);

	if (!ret)
		ret = x86_write_acpi(b->vm, &b->rsdp);
	if (!ret && b->vm->config->firmware)
		ret = firmware_write_smbios(b->vm);
	if (!ret)
		ret = choose_entry(b, entry);
	if (ret)
		return ret;
	write_gdt(b->vm, entry->pvh);
	if (entry->pvh) {
		write_pvh_info(b);
		return 0;
	}
	entry->cr3 = write_page_tables(b->vm);
	return write_boot_params(b);
}
