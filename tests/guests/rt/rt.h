/* SPDX-License-Identifier: MIT */
/*
 * Runtime of the test guests: freestanding 64-bit programs that test the machine from inside.
 *
 * A guest defines guest_main(). Returning ends the run with status 0; a CHECK() that fails, or an exception that no
 * handler takes, prints where on the serial port and ends it with status RT_FAILED. Interrupts are off on entry.
 * There is no floating point and no SSE; code should stay short, since the CPU may be interpreted.
 */
#ifndef RT_H
#define RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rt/layout.h"

#define RT_FAILED 17

void guest_main(void);

/* Ends the run with this status: the byte goes to the debug-exit port. */
_Noreturn void rt_exit(uint8_t status);
_Noreturn void rt_fail(const char *file, int line, const char *what);
_Noreturn void rt_fail_eq(const char *file, int line, const char *what, uint64_t got, uint64_t want);

#define CHECK(cond)                                                                                                    \
	do {                                                                                                           \
		if (!(cond))                                                                                           \
			rt_fail(__FILE_NAME__, __LINE__, #cond);                                                       \
	} while (0)

#define CHECK_EQ(got, want)                                                                                            \
	do {                                                                                                           \
		uint64_t got_ = (got), want_ = (want);                                                                 \
		if (got_ != want_)                                                                                     \
			rt_fail_eq(__FILE_NAME__, __LINE__, #got " == " #want, got_, want_);                           \
	} while (0)

/* Output on the serial port, by polling; %s %d %u %x %lx %c only. */
void rt_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void rt_putc(char c);

/* How rt_putc() reaches the port's registers: COM1 unless the guest says otherwise. */
extern volatile uint8_t *rt_uart_mmio;

void *memset(void *to, int byte, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
bool rt_streq(const char *a, const char *b);

/* What the machine passed: boot_params (Linux protocol) or hvm_start_info (PVH); the other is NULL. */
extern uint8_t *rt_boot_params;
extern uint32_t rt_pvh_info;
const char *rt_cmdline(void);

/* Value of "name=value" or, for a bare word, ""; NULL if it is not on the command line. */
const char *rt_arg(const char *name);
uint64_t rt_arg_number(const char *name, uint64_t otherwise);
bool rt_arg_is(const char *name, const char *value);

/* A table of a guest's tests. */
struct rt_test {
	const char *name;
	void (*run)(void);
};
/* Runs the one that "test=NAME" on the command line names; fails if there is none of this name. */
void rt_run_test(const struct rt_test *tests, size_t count);

/* The first block of setup_data of this type: payload and length, or NULL. */
const void *rt_setup_data(uint32_t type, uint32_t *length);

/* Makes GiB number n (4..511) of physical memory accessible at its own address. At most 8 of them. */
void rt_map_gib(unsigned int n);

/* The frame as start.S pushes it. */
struct rt_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss;
};

/*
 * Called with interrupts off. Vectors from 32 on are counted in rt_interrupts[] first; without a handler they only
 * get an EOI. A handler for a vector from 32 on sends its EOI itself.
 */
typedef void (*rt_handler)(struct rt_frame *frame);
extern rt_handler rt_handlers[256];
extern volatile uint32_t rt_interrupts[256];

/* Microseconds by the PM timer. */
void rt_delay(uint32_t us);
/* Waits, interrupts on and halted in between, until vector was counted `count` times; false after us microseconds. */
bool rt_wait(uint8_t vector, uint32_t count, uint32_t us);
/* Time stamp in PM timer ticks (3579545 Hz), extended to 64 bits; call it at least every 4 seconds. */
uint64_t rt_ticks(void);
#define RT_TICKS_PER_MS 3580

#endif
