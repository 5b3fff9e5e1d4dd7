/* SPDX-License-Identifier: MIT */
#include "rt/rt.h"

#include <stdarg.h>

#include "rt/apic.h"
#include "rt/io.h"

#define COM1	   0x3f8
#define UART_LSR   5
#define LSR_THRE   0x20
#define DEBUG_EXIT 0xf4

/* boot_params: Documentation/arch/x86/zero-page.rst */
#define BP_CMD_LINE_PTR 0x228
#define BP_SETUP_DATA	0x250
#define PVH_CMDLINE	24

void rt_main(void);
void rt_interrupted(struct rt_frame *frame);

extern const uint8_t rt_stubs[256 * 16];

uint64_t rt_idt[256 * 2] __attribute__((aligned(16)));
uint8_t *rt_boot_params;
uint32_t rt_pvh_info;
volatile uint8_t *rt_uart_mmio;
rt_handler rt_handlers[256];
volatile uint32_t rt_interrupts[256];

void *memset(void *to, int byte, size_t n)
{
	void *at = to;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(byte) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;

	for (size_t i = 0; i < n; i++)
		if (x[i] != y[i])
			return x[i] - y[i];
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

bool rt_streq(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

void rt_putc(char c)
{
	if (rt_uart_mmio) {
		while (!(rt_uart_mmio[UART_LSR] & LSR_THRE))
			;
		rt_uart_mmio[0] = (uint8_t)c;
		return;
	}
	while (!(inb(COM1 + UART_LSR) & LSR_THRE))
		;
	outb(COM1, (uint8_t)c);
}

static void put_string(const char *s)
{
	/* One look at the transmitter a line's worth: the port takes what comes, and each look is an exit. */
	while (*s) {
		rt_putc(*s++);
		for (int i = 1; i < 16 && *s; i++, s++) {
			if (rt_uart_mmio)
				rt_uart_mmio[0] = (uint8_t)*s;
			else
				outb(COM1, (uint8_t)*s);
		}
	}
}

static char *number(char *end, uint64_t value, unsigned int base)
{
	*--end = '\0';
	do
		*--end = "0123456789abcdef"[value % base];
	while (value /= base);
	return end;
}

void rt_print(const char *fmt, ...)
{
	char line[256], digits[24], *out = line;
	va_list ap;

	va_start(ap, fmt);
	for (; *fmt && out < line + sizeof(line) - 32; fmt++) {
		char letter[2] = { *fmt, '\0' };
		const char *text = letter;
		bool wide;

		if (*fmt == '%') {
			wide = *++fmt == 'l';
			fmt += wide;
			if (*fmt == 's')
				text = va_arg(ap, const char *);
			else if (*fmt == 'c')
				letter[0] = (char)va_arg(ap, int);
			else
				text = number(digits + sizeof(digits),
					      wide ? va_arg(ap, uint64_t) : va_arg(ap, unsigned int),
					      *fmt == 'x' ? 16 : 10);
		}
		while (*text && out < line + sizeof(line) - 1)
			*out++ = *text++;
	}
	va_end(ap);
	*out = '\0';
	put_string(line);
}

_Noreturn void rt_exit(uint8_t status)
{
	irq_off();
	outb(DEBUG_EXIT, status);
	for (;;)
		__asm__ volatile("hlt");
}

_Noreturn void rt_fail(const char *file, int line, const char *what)
{
	irq_off();
	rt_print("FAIL %s:%u: %s\n", file, (unsigned int)line, what);
	rt_exit(RT_FAILED);
}

_Noreturn void rt_fail_eq(const char *file, int line, const char *what, uint64_t got, uint64_t want)
{
	irq_off();
	rt_print("FAIL %s:%u: %s: got 0x%lx, want 0x%lx\n", file, (unsigned int)line, what, got, want);
	rt_exit(RT_FAILED);
}

void rt_interrupted(struct rt_frame *frame)
{
	uint8_t vector = (uint8_t)frame->vector;
	uint64_t cr2;

	if (vector >= 32)
		rt_interrupts[vector]++;
	if (rt_handlers[vector]) {
		rt_handlers[vector](frame);
	} else if (vector >= 32) {
		lapic_eoi();
	} else {
		__asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
		rt_print("FAIL exception %u error 0x%lx rip 0x%lx cr2 0x%lx\n", (unsigned int)vector, frame->error,
			 frame->rip, cr2);
		rt_exit(RT_FAILED);
	}
}

static void make_idt(void)
{
	const uint64_t present_interrupt_gate = 0x8e0000000000;
	uint64_t stub = (uint64_t)rt_stubs; /* below 4 GiB */

	for (int i = 0; i < 256; i++, stub += 16) {
		rt_idt[2 * i] = (stub & 0xffff) | GDT_CODE64 << 16 | present_interrupt_gate | (stub & 0xffff0000) << 32;
	}
}

const char *rt_cmdline(void)
{
	if (rt_boot_params)
		return (const char *)(uint64_t) * (uint32_t *)(rt_boot_params + BP_CMD_LINE_PTR);
	return (const char *)*(uint64_t *)((uint64_t)rt_pvh_info + PVH_CMDLINE);
}

const char *rt_arg(const char *name)
{
	const char *at = rt_cmdline();
	size_t length = strlen(name);

	while (at && *at) {
		if (!memcmp(at, name, length) && (at[length] == '=' || at[length] == ' ' || !at[length]))
			return at + length + (at[length] == '=');
		while (*at && *at != ' ')
			at++;
		while (*at == ' ')
			at++;
	}
	return NULL;
}

uint64_t rt_arg_number(const char *name, uint64_t otherwise)
{
	const char *text = rt_arg(name);
	uint64_t value = 0;

	if (!text)
		return otherwise;
	for (; *text >= '0' && *text <= '9'; text++)
		value = value * 10 + (uint64_t)(*text - '0');
	return value;
}

bool rt_arg_is(const char *name, const char *value)
{
	const char *text = rt_arg(name);
	size_t length = strlen(value);

	return text && !memcmp(text, value, length) && (text[length] == ' ' || !text[length]);
}

void rt_run_test(const struct rt_test *tests, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (rt_arg_is("test", tests[i].name)) {
			tests[i].run();
			return;
		}
	}
	CHECK(!"a test of this name");
}

const void *rt_setup_data(uint32_t type, uint32_t *length)
{
	uint64_t at = *(uint64_t *)(rt_boot_params + BP_SETUP_DATA);

	while (at) {
		const struct {
			uint64_t next;
			uint32_t type, length;
			uint8_t data[];
		} *block = (const void *)at;

		if (block->type == type) {
			*length = block->length;
			return block->data;
		}
		at = block->next;
	}
	return NULL;
}

void rt_map_gib(unsigned int n)
{
	static uint64_t directories[8][512] __attribute__((aligned(4096)));
	static unsigned int used;
	uint64_t *pdpt = (uint64_t *)(*(uint64_t *)read_cr3() & ~0xfffULL);

	CHECK(n < 512);
	if (pdpt[n] & 1)
		return;
	CHECK(used < 8);
	for (uint64_t i = 0; i < 512; i++)
		directories[used][i] = ((uint64_t)n << 30) | i << 21 | 0x83;
	pdpt[n] = (uint64_t)directories[used++] | 3;
	write_cr3(read_cr3());
}

void rt_main(void)
{
	make_idt();
	guest_main();
	rt_exit(0);
}
