/* SPDX-License-Identifier: MIT */
/* The firmware configuration device at its ports. */
#ifndef FIRMWARE_FW_CFG_H
#define FIRMWARE_FW_CFG_H

#include "firmware/fw_cfg_core.h"

struct vm;
struct fw_cfg;

#define FW_CFG_PORT 0x510

/* Makes it, with its signature and nothing else; the machine owns it. NULL after printing one line. */
struct fw_cfg *fw_cfg_create(struct vm *vm);

/* To add items to, before the guest runs. */
struct fw_cfg_core *fw_cfg_items(struct fw_cfg *f);

#endif
