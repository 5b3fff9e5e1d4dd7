/* SPDX-License-Identifier: MIT */
/* Hypercalls: the input value, the parameters in memory, and what is answered (TLFS 3). */
#include <string.h>

#include "arch/x86/hyperv/internal.h"
#include "vmm/trace.h"
#include "vmm/vm.h"

#define PARAMETER_ALIGN 8

/* TLFS 3.8: parameters in memory are aligned to 8 bytes and stay in one page. They are copied, once. */
static enum hv_status fetch(const struct hv_partition *partition, uint64_t gpa, void *to, size_t size)
{
	const void *from;

	if (gpa % PARAMETER_ALIGN || gpa % HV_PAGE + size > HV_PAGE)
		return HV_STATUS_INVALID_ALIGNMENT;
	from = ram_ptr(&partition->vm->memory, gpa, size);
	if (!from)
		return HV_STATUS_INVALID_PARAMETER;
	memcpy(to, from, size);
	return HV_STATUS_SUCCESS;
}

enum hv_status hv_call_post(struct hv_partition *partition, const struct hv_post_input *input)
{
	if (input->reserved || input->type == HV_MESSAGE_NONE || input->type & HV_MESSAGE_HYPERVISOR ||
	    input->size > HV_MESSAGE_PAYLOAD)
		return HV_STATUS_INVALID_PARAMETER;
	return hv_ports_post(partition, input->connection, input->type, input->payload, input->size);
}

/* The statuses are those that KVM gives for the calls it handles itself. */
enum hv_status hv_call_signal(struct hv_partition *partition, uint64_t input)
{
	uint32_t connection = (uint32_t)input;

	if (input >> 32 & 0xffff)
		return HV_STATUS_INVALID_PORT_ID;
	if (input >> 48 || connection & ~HV_CONNECTION_ID)
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	return hv_ports_signal(partition, connection);
}

static enum hv_status slow(struct hv_partition *partition, unsigned int code, uint64_t gpa)
{
	struct hv_post_input post;
	uint64_t signal;
	enum hv_status status;

	if (code == HV_CALL_SIGNAL_EVENT) {
		status = fetch(partition, gpa, &signal, sizeof(signal));
		return status ? status : hv_call_signal(partition, signal);
	}
	status = fetch(partition, gpa, &post, sizeof(post));
	return status ? status : hv_call_post(partition, &post);
}

/* Both calls are simple ones: no repetitions, no variable header; and a message does not fit into registers. */
static enum hv_status dispatch(struct hv_partition *partition, uint64_t control, uint64_t input)
{
	unsigned int code = control & HV_CALL_CODE;

	if (code != HV_CALL_POST_MESSAGE && code != HV_CALL_SIGNAL_EVENT)
		return HV_STATUS_INVALID_HYPERCALL_CODE;
	if (control & (HV_CALL_RESERVED | HV_CALL_HEADER_SIZE | HV_CALL_REP_COUNT | HV_CALL_REP_START))
		return HV_STATUS_INVALID_HYPERCALL_INPUT;
	if (!(control & HV_CALL_FAST))
		return slow(partition, code, input);
	return code == HV_CALL_SIGNAL_EVENT ? hv_call_signal(partition, input) : HV_STATUS_INVALID_HYPERCALL_INPUT;
}

uint64_t hv_hypercall(struct hv_partition *partition, uint64_t control, uint64_t input)
{
	enum hv_status status = dispatch(partition, control, input);

	TRACE(hv_hypercall, "control 0x%llx input 0x%llx status 0x%x", (unsigned long long)control,
	      (unsigned long long)input, (unsigned int)status);
	return status;
}
