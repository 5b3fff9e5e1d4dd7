/* SPDX-License-Identifier: MIT */
/* Between vm.c, which builds and runs the machine, and vm_request.c, which ends, resets and pauses it. */
#ifndef VMM_VM_REQUEST_H
#define VMM_VM_REQUEST_H

#include <stddef.h>

#include "vmm/vm.h"

#define PARK_NS 5000000000ULL /* a vCPU that takes longer to park is taken for stuck */

#define vm_from_member(ptr, member) ((struct vm *)((char *)(ptr)-offsetof(struct vm, member)))

/* As vm_exit(). Returns whether it is this request that counts. */
bool vm_end(struct vm *vm, int status);

/* The work of a request, on the loop thread. */
void vm_carry_out(struct loop_work *work);

/* Waits until all vCPUs are parked, vm->stop being set; false if that takes longer than ns. */
bool vm_wait_parked(struct vm *vm, uint64_t ns);

/* Ends the loading of the kernel and puts the first vCPU at its entry. 0, or -errno after printing one line. */
int vm_enter(struct vm *vm, struct x86_boot *boot);

#endif
