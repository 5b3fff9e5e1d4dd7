/* SPDX-License-Identifier: MIT */
/*
 * Trace points. Each is a USDT probe (provider "vmm") and, when --trace names it, a line of text.
 * TRACE(name, "format", args...): name must be in TRACE_POINTS; args are integers or strings.
 * The switchboard is the one piece of state at file scope in vmm: it belongs to the process, not to a VM.
 */
#ifndef VMM_TRACE_H
#define VMM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#define SDT_USE_VARIADIC /* STAP_PROBEV */
#include <sys/sdt.h>

#define TRACE_POINTS(X)                                                                                                \
	X(vcpu_exit)                                                                                                   \
	X(pio_read)                                                                                                    \
	X(pio_write)                                                                                                   \
	X(mmio_read)                                                                                                   \
	X(mmio_write)                                                                                                  \
	X(irq_level)                                                                                                   \
	X(msi_route)                                                                                                   \
	X(msr_unknown)                                                                                                 \
	X(hv_msr_read)                                                                                                 \
	X(hv_msr_write)                                                                                                \
	X(hv_hypercall)                                                                                                \
	X(hv_message)                                                                                                  \
	X(hv_event)                                                                                                    \
	X(vmbus_recv_message)                                                                                          \
	X(vmbus_signal_event)                                                                                          \
	X(vmbus_channel_notify_guest)                                                                                  \
	X(vmbus_post_msg)                                                                                              \
	X(vmbus_msg_cb)                                                                                                \
	X(vmbus_process_incoming_message)                                                                              \
	X(vmbus_initiate_contact)                                                                                      \
	X(vmbus_send_offer)                                                                                            \
	X(vmbus_terminate_offers)                                                                                      \
	X(vmbus_gpadl_header)                                                                                          \
	X(vmbus_gpadl_body)                                                                                            \
	X(vmbus_gpadl_created)                                                                                         \
	X(vmbus_gpadl_teardown)                                                                                        \
	X(vmbus_gpadl_torndown)                                                                                        \
	X(vmbus_open_channel)                                                                                          \
	X(vmbus_channel_open)                                                                                          \
	X(vmbus_close_channel)                                                                                         \
	X(scsi_command)                                                                                                \
	X(scsi_done)                                                                                                   \
	X(block_submit)                                                                                                \
	X(block_done)                                                                                                  \
	X(ivshmem_peer)                                                                                                \
	X(ivshmem_doorbell)                                                                                            \
	X(memslot_add)                                                                                                 \
	X(flash_write)                                                                                                 \
	X(fw_cfg_select)                                                                                               \
	X(fw_cfg_dma)                                                                                                  \
	X(memslot_del)                                                                                                 \
	X(vm_event)                                                                                                    \
	X(post_code)                                                                                                   \
	X(uart_read)                                                                                                   \
	X(uart_write)                                                                                                  \
	X(pci_config_read)                                                                                             \
	X(pci_config_write)                                                                                            \
	X(pci_bar_map)                                                                                                 \
	X(pci_bar_unmap)                                                                                               \
	X(vfio_user_send)                                                                                              \
	X(vfio_user_recv)                                                                                              \
	X(vfio_user_event)                                                                                             \
	X(vhost_user_send)                                                                                             \
	X(vhost_user_recv)                                                                                             \
	X(vhost_user_event)                                                                                            \
	X(virtio_blk_request)                                                                                          \
	X(virtio_blk_done)                                                                                             \
	X(virtio_status)                                                                                               \
	X(virtio_interrupt)

enum trace_id {
#define X(name) TRACE_##name,
	TRACE_POINTS(X)
#undef X
		TRACE_COUNT
};

extern bool trace_on[TRACE_COUNT];

#define TRACE(name, fmt, ...)                                                                                          \
	do {                                                                                                           \
		STAP_PROBEV(vmm, name, ##__VA_ARGS__);                                                                 \
		if (__builtin_expect(trace_on[TRACE_##name], 0))                                                       \
			trace_emit(TRACE_##name, fmt, ##__VA_ARGS__);                                                  \
	} while (0)

void trace_emit(enum trace_id id, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Turns on the points that match "GLOB[,file=PATH]". Before any thread starts. 0, or -errno with a sentence in err.
 */
int trace_enable(const char *spec, char *err, size_t errlen);
void trace_list(void); /* every name, a line each, on standard output */
void trace_close(void);

#endif
