/* SPDX-License-Identifier: MIT */
/*
 * An EFI application that looks at what a firmware has made of the machine, and says it in lines "efi: KEY VALUES".
 * What is wrong in any case is a line "efi: BAD ...". The words of its command line, and those that it was built with
 * (tests/efi/make), say what to do at the end:
 *
 *   count   adds one to a variable that lasts, and tells it
 *   reset   resets, unless a byte of the clock's RAM says that it has been here before; tells which boot this is
 *   exit    leaves boot services before the power-off
 *   draw    draws a picture (tests/efi/picture knows it), and waits for a byte at the serial port before the power-off;
 *           with exit, or a driver of the firmware's may take the byte
 *
 * Its last act is to power off.
 */
#include "efi.h"

#define MAP_MAX	    (64 * 1024)
#define SERIAL_PORT 0x3f8
#define LSR_READY   0x01
#define LSR_IDLE    0x20
#define CMOS_PORT   0x70
#define CMOS_BYTE   0x7e /* means nothing to a firmware */
#define WINDOWS	    4
#define BARS	    6
#ifndef WORDS
#define WORDS ""
#endif

struct app {
	efi_handle image;
	struct efi_system *system;
	struct efi_boot_services *boot;
	struct efi_runtime_services *runtime;
	uint64_t ecam; /* from MCFG */
	struct {
		uint64_t first, last;
	} windows[WINDOWS]; /* for memory BARs, from the DSDT */
	unsigned int windows_count;
};

static const struct efi_guid own_guid = { 0x6d6d7601, 0x7465, 0x7473, { 1, 2, 3, 4, 5, 6, 7, 8 } };
static const struct efi_guid acpi_guid = {
	0x8868e871, 0xe4f1, 0x11d3, { 0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81 }
};
static const struct efi_guid smbios3_guid = {
	0xf2fd1544, 0x9794, 0x4a2c, { 0x99, 0x2e, 0xe5, 0xbb, 0xcf, 0x20, 0xe3, 0x94 }
};
static const struct efi_guid smbios_guid = {
	0xeb9d2d31, 0x2d88, 0x11d3, { 0x9a, 0x16, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d }
};
static const struct efi_guid graphics_guid = {
	0x9042a9de, 0x23dc, 0x4a38, { 0x96, 0xfb, 0x7a, 0xde, 0xd0, 0x80, 0x51, 0x6a }
};
static const struct efi_guid image_guid = {
	0x5b1b31a1, 0x9562, 0x11d2, { 0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b }
};

static uint8_t map[MAP_MAX] __attribute__((aligned(8)));

static void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static uint32_t in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* By the serial port, not the firmware's console: it draws. Waits as a program without a FIFO has to. */
static void put(char c)
{
	while (!(in8(SERIAL_PORT + 5) & LSR_IDLE))
		;
	out8(SERIAL_PORT, (uint8_t)c);
}

static void text(const char *s)
{
	while (*s)
		put(*s++);
}

static void number(uint64_t value)
{
	char digits[20];
	int n = 0;

	do
		digits[n++] = (char)('0' + value % 10);
	while (value /= 10);
	while (n)
		put(digits[--n]);
}

static void hex(uint64_t value)
{
	text("0x");
	for (int shift = 60; shift >= 0; shift -= 4)
		if (value >> shift || !shift)
			put("0123456789abcdef"[value >> shift & 15]);
}

static void line(const char *key, uint64_t value)
{
	text("efi: ");
	text(key);
	put(' ');
	number(value);
	text("\r\n");
}

static void bad(const char *what, uint64_t value)
{
	text("efi: BAD ");
	text(what);
	put(' ');
	hex(value);
	text("\r\n");
}

static bool same(const void *a, const void *b, size_t length)
{
	const uint8_t *x = a, *y = b;

	while (length && *x == *y)
		x++, y++, length--;
	return !length;
}

static uint64_t load(const uint8_t *from, unsigned int size)
{
	uint64_t value = 0;

	while (size--)
		value = value << 8 | from[size];
	return value;
}

static void *find_table(const struct app *app, const struct efi_guid *guid)
{
	for (uint64_t i = 0; i < app->system->tables_count; i++)
		if (same(&app->system->tables[i].guid, guid, sizeof(*guid)))
			return app->system->tables[i].table;
	return NULL;
}

static bool sums_to_zero(const uint8_t *bytes, uint64_t length)
{
	uint8_t sum = 0;

	while (length--)
		sum = (uint8_t)(sum + *bytes++);
	return !sum;
}

/*
 * Windows for memory in the DSDT, by what their descriptors begin with (ACPI 6.5, 6.4.3.5.1 and 6.4.3.5.2): PCI's, and
 * those of VMBus if it is there. An interpreter of AML would be needed to tell whose they are.
 */
static void find_windows(struct app *app, const uint8_t *dsdt)
{
	static const uint8_t large[2][4] = { { 0x87, 23, 0, 0 }, { 0x8a, 43, 0, 0 } };
	uint64_t length = load(dsdt + 4, 4);

	for (uint64_t at = 36; at + 46 <= length; at++) {
		for (unsigned int wide = 0; wide < 2; wide++) {
			const uint8_t *d = dsdt + at, width = wide ? 8 : 4;
			uint64_t first = load(d + 6 + width, width), last = load(d + 6 + 2 * width, width);

			if (!same(d, large[wide], 4) || last - first + 1 != load(d + 6 + 4 * width, width))
				continue;
			text("efi: window ");
			hex(first);
			put(' ');
			hex(last);
			text("\r\n");
			if (app->windows_count == WINDOWS) {
				bad("window", first);
				return;
			}
			app->windows[app->windows_count].first = first;
			app->windows[app->windows_count++].last = last;
		}
	}
}

static void show_table(struct app *app, const uint8_t *table)
{
	uint64_t length = load(table + 4, 4);

	text("efi: acpi ");
	for (int i = 0; i < 4; i++)
		put((char)table[i]);
	put(' ');
	number(length);
	text("\r\n");
	if (!sums_to_zero(table, length))
		bad("checksum of a table of length", length);
	if (same(table, "MCFG", 4)) {
		app->ecam = load(table + 44, 8);
		text("efi: ecam ");
		hex(app->ecam);
		text("\r\n");
	}
	if (same(table, "DSDT", 4))
		find_windows(app, table);
	if (same(table, "FACP", 4)) {
		const uint8_t *facs = (const uint8_t *)load(table + 36, 4),
			      *dsdt = (const uint8_t *)load(table + 140, 8);

		if (!facs)
			text("efi: no facs\r\n");
		else if (!same(facs, "FACS", 4))
			bad("FACS at", (uint64_t)facs);
		if (!dsdt || !same(dsdt, "DSDT", 4) || load(table + 40, 4) != (uint64_t)dsdt)
			bad("DSDT at", (uint64_t)dsdt);
		else
			show_table(app, dsdt);
	}
}

static void walk_acpi(struct app *app)
{
	const uint8_t *rsdp = find_table(app, &acpi_guid), *xsdt;

	if (!rsdp || !same(rsdp, "RSD PTR ", 8) || !sums_to_zero(rsdp, 36)) {
		bad("RSDP at", (uint64_t)rsdp);
		return;
	}
	xsdt = (const uint8_t *)load(rsdp + 24, 8);
	if (!same(xsdt, "XSDT", 4) || !sums_to_zero(xsdt, load(xsdt + 4, 4))) {
		bad("XSDT at", (uint64_t)xsdt);
		return;
	}
	for (uint64_t at = 36; at + 8 <= load(xsdt + 4, 4); at += 8)
		show_table(app, (const uint8_t *)load(xsdt + at, 8));
}

/* Handles of its structures, in order, and that they end where they should. */
static void walk_smbios(const struct app *app)
{
	const uint8_t *anchor = find_table(app, &smbios3_guid), *old = find_table(app, &smbios_guid), *at, *end;

	if (anchor && same(anchor, "_SM3_", 5) && sums_to_zero(anchor, 24)) {
		at = (const uint8_t *)load(anchor + 16, 8);
		end = at + load(anchor + 12, 4);
	} else if (!anchor && old && same(old, "_SM_", 4) && sums_to_zero(old, 31)) {
		at = (const uint8_t *)load(old + 24, 4);
		end = at + load(old + 22, 2);
	} else {
		bad("SMBIOS at", (uint64_t)(anchor ? anchor : old));
		return;
	}
	text("efi: smbios");
	while (at + 4 <= end) {
		uint8_t type = at[0];

		put(' ');
		number(type);
		for (at += at[1]; at + 1 < end && (at[0] || at[1]); at++)
			;
		at += 2;
		if (type == 127)
			break;
	}
	text("\r\n");
}

static uint64_t read_map(const struct app *app, uint64_t *size, uint64_t *item)
{
	uint64_t key = 0;
	uint32_t version;
	efi_status status;

	*size = sizeof(map);
	status = app->boot->get_memory_map(size, map, &key, item, &version);
	if (status)
		bad("memory map", status);
	return key;
}

static void walk_map(const struct app *app)
{
	uint64_t size, item, pages = 0, last = 0;

	read_map(app, &size, &item);
	for (uint64_t at = 0; at < size; at += item) {
		const struct efi_memory *m = (const struct efi_memory *)(map + at);

		if (m->start < last)
			bad("memory map is not sorted at", m->start);
		last = m->start + m->pages * 4096;
		if (m->type > EFI_RESERVED && m->type <= EFI_ACPI_NVS)
			pages += m->pages;
		if (m->type == EFI_MMIO || m->type == EFI_RESERVED) {
			text(m->type == EFI_MMIO ? "efi: mmio " : "efi: reserved ");
			hex(m->start);
			put(' ');
			hex(m->pages * 4096);
			text("\r\n");
		}
	}
	line("ram-mib", pages >> 8);
}

static void show_time(const struct app *app)
{
	struct efi_time t;
	efi_status status = app->runtime->get_time(&t, NULL);

	if (status) {
		bad("time", status);
		return;
	}
	text("efi: time ");
	number(t.year);
	for (int i = 0; i < 5; i++) {
		put(' ');
		number((&t.month)[i]);
	}
	text("\r\n");
}

static uint32_t config_read(unsigned int devfn, unsigned int reg)
{
	out32(0xcf8, 0x80000000u | devfn << 8 | reg);
	return in32(0xcfc);
}

/* A memory BAR that has an address has one in a window. Returns how many registers it takes. */
static unsigned int check_bar(const struct app *app, const uint32_t *bar, unsigned int left)
{
	const bool wide = left > 1 && (bar[0] & 7) == 4;
	const uint64_t address = (bar[0] & ~15u) | (wide ? (uint64_t)bar[1] << 32 : 0);

	for (unsigned int i = 0; i < app->windows_count; i++)
		if (address >= app->windows[i].first && address <= app->windows[i].last)
			return wide ? 2 : 1;
	if (address && !(bar[0] & 1))
		bad("BAR at", address);
	return wide ? 2 : 1;
}

/* Each function by ports and by ECAM, with its BARs. */
static void walk_pci(const struct app *app)
{
	for (unsigned int devfn = 0; devfn < 256; devfn++) {
		uint32_t id = config_read(devfn, 0), bars[BARS];

		if (id == UINT32_MAX)
			continue;
		text("efi: pci ");
		hex(devfn);
		put(' ');
		hex(id);
		for (unsigned int bar = 0; bar < BARS; bar++) {
			bars[bar] = config_read(devfn, 0x10 + 4 * bar);
			put(' ');
			hex(bars[bar]);
		}
		text("\r\n");
		for (unsigned int bar = 0; bar < BARS;)
			bar += check_bar(app, bars + bar, BARS - bar);
		if (app->ecam && *(volatile uint32_t *)(app->ecam + ((uint64_t)devfn << 12)) != id)
			bad("ECAM does not show function", devfn);
	}
}

static struct efi_graphics *find_graphics(const struct app *app)
{
	efi_handle handles[16];
	uint64_t size = sizeof(handles);
	efi_status status = app->boot->locate_handle(EFI_BY_PROTOCOL, &graphics_guid, NULL, &size, handles);
	struct efi_graphics *graphics = NULL;

	line("gop", status ? 0 : size / sizeof(efi_handle));
	if (!status && app->boot->handle_protocol(handles[0], &graphics_guid, (void **)&graphics))
		bad("graphics", size);
	return graphics;
}

/* Straight into the frame buffer, and a square of one colour by the firmware. */
static void draw(struct efi_graphics *graphics)
{
	const struct efi_graphics_mode *mode = graphics->mode;
	const struct efi_graphics_info *info = mode->info;
	const uint32_t colour = 0x123456;

	if (info->format != EFI_BGRX || mode->size < 4ULL * info->line * info->height) {
		bad("graphics mode", info->format);
		return;
	}
	for (uint32_t y = 0; y < info->height; y++)
		for (uint32_t x = 0; x < info->width; x++)
			((volatile uint32_t *)mode->base)[y * info->line + x] =
				(x & 255) << 16 | (y & 255) << 8 | (((x >> 8) << 4 | y >> 8) & 255);
	if (graphics->blt(graphics, &colour, EFI_BLT_FILL, 0, 0, 40, 30, 100, 50, 0))
		bad("filling a square", mode->mode);
}

static void count_boots(const struct app *app)
{
	uint64_t count = 0, size = sizeof(count);
	efi_status status = app->runtime->get_variable(u"VmmCount", &own_guid, NULL, &size, &count);

	if (status && status != EFI_NOT_FOUND)
		bad("reading a variable", status);
	count++;
	status = app->runtime->set_variable(u"VmmCount", &own_guid, EFI_VAR_KEPT, sizeof(count), &count);
	if (status)
		bad("writing a variable", status);
	line("count", count);
}

/* Compares as far as word goes. */
static bool begins(const char *s, const char *word)
{
	while (*word && *s == *word)
		s++, word++;
	return !*word;
}

/* How often the application has run since the machine was switched on. */
static unsigned int count_resets(void)
{
	unsigned int boot;

	out8(CMOS_PORT, CMOS_BYTE);
	boot = in8(CMOS_PORT + 1) + 1u;
	out8(CMOS_PORT, CMOS_BYTE);
	out8(CMOS_PORT + 1, (uint8_t)boot);
	line("boot", boot);
	return boot;
}

static bool has_word(const struct efi_loaded_image *image, const char *word)
{
	const uint64_t count = image->options ? image->options_size / 2 : 0;

	for (const char *at = WORDS; *at; at++)
		if (begins(at, word))
			return true;

	for (uint64_t at = 0; at < count; at++) {
		uint64_t i = 0;

		while (word[i] && at + i < count && image->options[at + i] == (uint16_t)word[i])
			i++;
		if (!word[i])
			return true;
	}
	return false;
}

static void leave(struct app *app)
{
	uint64_t size, item, key = read_map(app, &size, &item);
	efi_status status = app->boot->exit_boot_services(app->image, key);

	if (status)
		bad("leaving boot services", status);
	show_time(app); /* by runtime services alone */
}

static void wait_for_byte(void)
{
	text("efi: drawn\r\n");
	while (!(in8(SERIAL_PORT + 5) & LSR_READY))
		;
	in8(SERIAL_PORT);
}

efi_status efi_main(efi_handle handle, struct efi_system *system);

efi_status efi_main(efi_handle handle, struct efi_system *system)
{
	struct app app = { handle, system, system->boot, system->runtime, 0, { { 0 } }, 0 };
	struct efi_loaded_image *image = NULL;
	struct efi_graphics *graphics;
	bool again;

	text("\r\nefi: hello\r\n");
	if (app.boot->handle_protocol(handle, &image_guid, (void **)&image))
		bad("loaded image", 0);
	walk_acpi(&app);
	walk_smbios(&app);
	walk_map(&app);
	show_time(&app);
	walk_pci(&app);
	graphics = find_graphics(&app);
	if (image && has_word(image, "count"))
		count_boots(&app);
	again = image && has_word(image, "reset") && count_resets() == 1;
	if (graphics && image && has_word(image, "draw"))
		draw(graphics);
	if (image && has_word(image, "exit"))
		leave(&app);
	if (graphics && image && has_word(image, "draw"))
		wait_for_byte();
	text("efi: done\r\n");
	if (again)
		app.runtime->reset(EFI_RESET_COLD, 0, 0, NULL);
	app.runtime->reset(EFI_RESET_OFF, 0, 0, NULL);
	return 0;
}
