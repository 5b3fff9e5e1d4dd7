/* SPDX-License-Identifier: MIT */
/*
 * MSRs that do not exist: "policy=fault" or "policy=ignore" says what has to come of them, "walk=N" uses so many. What
 * the processor does have works either way, and does not take a wrong value.
 */
#include "rt/hyperv.h"
#include "rt/io.h"
#include "rt/rt.h"

#define APIC_BASE    0x1bu
#define EFER	     0xc0000080u
#define EFER_NOTHING (1ull << 1) /* a bit without a meaning */
#define NOWHERE	     0x12345000u

void guest_main(void)
{
	const bool ignored = rt_arg_is("policy", "ignore");
	const uint32_t walk = (uint32_t)rt_arg_number("walk", 1);
	uint64_t value;

	hv_catch_gp();
	CHECK(hv_try_rdmsr(APIC_BASE, &value) && value);
	CHECK(hv_try_wrmsr(APIC_BASE, value));
	CHECK(hv_try_rdmsr(EFER, &value) && value);
	CHECK(!hv_try_wrmsr(EFER, value | EFER_NOTHING));
	for (uint32_t i = 0; i < walk; i++) {
		CHECK_EQ(hv_try_rdmsr(NOWHERE + i, &value), ignored);
		CHECK(!ignored || !value);
		CHECK_EQ(hv_try_wrmsr(NOWHERE + i, 0x1122334455667788), ignored);
		CHECK_EQ(hv_try_rdmsr(NOWHERE + i, &value), ignored);
		CHECK(!ignored || !value);
	}
	CHECK_EQ(hv_try_wrmsr(NOWHERE - 1, 0x1122334455667788), ignored);
	/* Which of Hyper-V's are there, CPUID has told; the others are no unknown ones. */
	if (!rt_arg("hyperv"))
		return;
	CHECK(hv_try_rdmsr(HV_VP_INDEX, &value));
	CHECK(!hv_try_rdmsr(HV_GUEST_IDLE, &value));
	CHECK(!hv_try_wrmsr(HV_GUEST_IDLE, 0));
}
