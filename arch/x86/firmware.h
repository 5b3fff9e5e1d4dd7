/* SPDX-License-Identifier: MIT */
/* Boot through UEFI firmware (--firmware): stock OVMF in flash, with fw_cfg to tell it of the machine. */
#ifndef ARCH_X86_FIRMWARE_H
#define ARCH_X86_FIRMWARE_H

struct firmware;
struct vm;

/*
 * Reads the firmware, and sets vm->firmware if it belongs into flash; an ELF file (CLOUDHV.fd) is left to
 * x86_boot_load(). 0, or -errno after printing one line. firmware_free() is due in any case; NULL is fine.
 */
int firmware_load(struct vm *vm);
void firmware_free(struct firmware *firmware);

/*
 * SMBIOS for a firmware that is an ELF file and takes it from where Cloud Hypervisor has it, at SMBIOS_GPA. 0, or
 * -errno after printing one line.
 */
int firmware_write_smbios(struct vm *vm);

/* Flash and fw_cfg. The last of the devices: fw_cfg tells of the others. 0, or -errno after printing one line. */
int firmware_create_devices(struct vm *vm);

#endif
