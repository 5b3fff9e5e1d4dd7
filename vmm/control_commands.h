/* SPDX-License-Identifier: MIT */
/* The commands of the control socket that are about the machine itself. */
#ifndef VMM_CONTROL_COMMANDS_H
#define VMM_CONTROL_COMMANDS_H

struct vm;

/*
 * Makes vm->control, the server of --control, with these commands; devices that are created later add theirs. 0, or
 * -errno after printing one line.
 */
int control_open(struct vm *vm);

#endif
