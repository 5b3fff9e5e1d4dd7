/* SPDX-License-Identifier: MIT */
/*
 * A picture in the guest's RAM: the guest says where by the fw_cfg file "etc/ramfb", and draws. There is no screen; the
 * command "screenshot" writes a PNG of it.
 */
#ifndef DEVICES_DISPLAY_RAMFB_H
#define DEVICES_DISPLAY_RAMFB_H

struct fw_cfg_core;
struct vm;

/*
 * Adds the file and the command; nothing without a control socket, for to draw costs a guest time and nobody could
 * look. The machine owns it. 0, or -errno after printing one line.
 */
int ramfb_create(struct vm *vm, struct fw_cfg_core *core);

#endif
