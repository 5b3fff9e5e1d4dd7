/* SPDX-License-Identifier: MIT */
/*
 * A synthetic timer (TLFS 12.5): two registers and when it is due. Nothing here knows of KVM, threads or the host's
 * time; the owner locks, and says what the reference time is (100 ns units).
 */
#ifndef ARCH_X86_HYPERV_STIMER_H
#define ARCH_X86_HYPERV_STIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86/hyperv/tlfs.h"

#define HV_STIMER_NEVER UINT64_MAX

/* Zero-initialise. due counts while HV_STIMER_ENABLE is set. */
struct hv_stimer {
	uint64_t config, count, due;
};

void hv_stimer_write_config(struct hv_stimer *timer, uint64_t value, uint64_t now);
void hv_stimer_write_count(struct hv_stimer *timer, uint64_t value, uint64_t now);

/* When it is due; HV_STIMER_NEVER while it is off. */
uint64_t hv_stimer_due(const struct hv_stimer *timer);

/*
 * If it is due: true, once; *expired is when it was. A periodic one goes on with its next whole period: those that have
 * been missed are lost.
 */
bool hv_stimer_expire(struct hv_stimer *timer, uint64_t now, uint64_t *expired);

static inline unsigned int hv_stimer_sint(const struct hv_stimer *timer)
{
	return (unsigned int)(timer->config >> HV_STIMER_SINT_SHIFT) & (HV_SINTS - 1);
}

static inline uint8_t hv_stimer_vector(const struct hv_stimer *timer)
{
	return (uint8_t)(timer->config >> HV_STIMER_VECTOR_SHIFT);
}

#endif
