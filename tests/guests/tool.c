/* SPDX-License-Identifier: MIT */
/*
 * Does what it is told, for tests of how runs end. Arguments, in this order: post=N: POST codes 1..N; exit=STATUS by
 * the debug port (width=1|2|4 bytes); do=ACTION, one of those below.
 */
#include "rt/io.h"
#include "rt/rt.h"

#define PVPANIC 0x505

static void no_idt(void)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) none;

	__asm__ volatile("lidt %0" : : "m"(none));
}

static void hlt(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void spin(void)
{
	for (;;)
		__asm__ volatile("pause");
}

static void panic(void)
{
	CHECK(inb(PVPANIC) & 1);
	outb(PVPANIC, 1);
}

static void crash_kernel(void)
{
	outb(PVPANIC, 2);
	rt_delay(20000); /* goes on */
	rt_print("still here\n");
	rt_exit(33);
}

static void triple(void)
{
	no_idt();
	__asm__ volatile("mov $0x1122334455667788, %%rax; ud2" : : : "rax");
}

/* Nothing is mapped there: a page fault with no handler. */
static void jump_unmapped(void)
{
	no_idt();
	__asm__ volatile("mov $0x123456789000, %%rax; jmp *%%rax" : : : "rax");
}

/* Mapped, but neither RAM nor device: there is no code to fetch. */
static void jump_nowhere(void)
{
	__asm__ volatile("mov $0xd0000000, %%eax; jmp *%%rax" : : : "rax");
}

static void jump_garbage(void)
{
	uint8_t *code = (uint8_t *)0x1000000;

	no_idt();
	memset(code, 0x06, 4096); /* no instruction in 64-bit mode */
	__asm__ volatile("jmp *%0" : : "r"(code));
}

static void exception(void)
{
	__asm__ volatile("ud2");
}

static void reset(void)
{
	outb(0xcf9, 6);
	hlt();
}

static void no_stack(void)
{
	__asm__ volatile("mov $0xdead000000000000, %%rax; mov %%rax, %%rsp; push %%rax" : : : "rax", "memory");
}

static void ignore_button(void)
{
	rt_print("ready\n");
	hlt();
}

static const struct {
	const char *name;
	void (*run)(void);
} actions[] = {
	{ "hlt", hlt },
	{ "spin", spin },
	{ "panic", panic },
	{ "crash-kernel", crash_kernel },
	{ "triple", triple },
	{ "jump-unmapped", jump_unmapped },
	{ "jump-nowhere", jump_nowhere },
	{ "jump-garbage", jump_garbage },
	{ "exception", exception },
	{ "reset", reset },
	{ "no-stack", no_stack },
	{ "ignore-button", ignore_button },
};

static void end_run(uint64_t status)
{
	uint64_t width = rt_arg_number("width", 1);

	/* Bytes above the first, and those at other offsets, do not count. */
	outb(0xf5, 0x7f);
	if (width == 1)
		outb(0xf4, (uint8_t)status);
	else if (width == 2)
		outw(0xf4, (uint16_t)(status | 0x5500));
	else
		outl(0xf4, (uint32_t)(status | 0x55555500));
	hlt();
}

void guest_main(void)
{
	uint64_t posts = rt_arg_number("post", 0);

	for (uint64_t i = 1; i <= posts; i++) {
		outb(0x80, (uint8_t)i);
		CHECK_EQ(inb(0x80), (uint8_t)i);
	}
	if (rt_arg("exit"))
		end_run(rt_arg_number("exit", 0));
	for (unsigned int i = 0; i < sizeof(actions) / sizeof(actions[0]); i++) {
		if (rt_arg_is("do", actions[i].name)) {
			actions[i].run();
			hlt();
		}
	}
	CHECK(!"no such action");
}
