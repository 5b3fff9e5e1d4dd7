/* SPDX-License-Identifier: MIT */
/*
 * What the test application uses of UEFI, in the order and with the types of the UEFI Specification 2.10. Compiled with
 * -mabi=ms, so every call is as UEFI wants it.
 */
#ifndef TESTS_EFI_EFI_H
#define TESTS_EFI_EFI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t efi_status;
typedef void *efi_handle;

#define EFI_ERROR(n)	  ((efi_status)1 << 63 | (n))
#define EFI_NOT_FOUND	  EFI_ERROR(14)
#define EFI_RESERVED	  0
#define EFI_ACPI_NVS	  10
#define EFI_MMIO	  11
#define EFI_VAR_KEPT	  7 /* non-volatile, by boot and by runtime services */
#define EFI_RESET_COLD	  0
#define EFI_RESET_OFF	  2
#define EFI_BY_PROTOCOL	  2
#define EFI_BLT_FILL	  0
#define EFI_BGRX	  1 /* PixelBlueGreenRedReserved8BitPerColor */
#define EFI_FN(name, ...) efi_status (*name)(__VA_ARGS__)

struct efi_guid {
	uint32_t a;
	uint16_t b, c;
	uint8_t d[8];
};

struct efi_header {
	uint64_t signature;
	uint32_t revision, size, crc32, reserved;
};

struct efi_time {
	uint16_t year;
	uint8_t month, day, hour, minute, second, pad;
	uint32_t nanosecond;
	int16_t zone;
	uint8_t daylight, pad2;
};

struct efi_memory {
	uint32_t type, pad;
	uint64_t start, virtual_start, pages, attribute;
};

/* Members that are never called are void *. */
struct efi_boot_services {
	struct efi_header header;
	void *raise_tpl, *restore_tpl, *allocate_pages, *free_pages;
	EFI_FN(get_memory_map, uint64_t *size, void *map, uint64_t *key, uint64_t *item, uint32_t *version);
	void *allocate_pool, *free_pool, *events[6], *protocols[3];
	EFI_FN(handle_protocol, efi_handle handle, const struct efi_guid *protocol, void **interface);
	void *reserved, *register_notify;
	EFI_FN(locate_handle, uint32_t how, const struct efi_guid *protocol, void *key, uint64_t *size,
	       efi_handle *list);
	void *locate_device_path, *install_table, *load_image, *start_image, *exit, *unload_image;
	EFI_FN(exit_boot_services, efi_handle image, uint64_t key);
};

struct efi_runtime_services {
	struct efi_header header;
	EFI_FN(get_time, struct efi_time *time, void *capabilities);
	void *set_time, *get_wakeup, *set_wakeup, *set_virtual_map, *convert_pointer;
	EFI_FN(get_variable, const uint16_t *name, const struct efi_guid *vendor, uint32_t *attributes, uint64_t *size,
	       void *data);
	void *next_variable;
	EFI_FN(set_variable, const uint16_t *name, const struct efi_guid *vendor, uint32_t attributes, uint64_t size,
	       const void *data);
	void *next_high;
	void (*reset)(uint32_t type, efi_status status, uint64_t size, const void *data);
};

struct efi_table {
	struct efi_guid guid;
	void *table;
};

struct efi_system {
	struct efi_header header;
	const uint16_t *vendor;
	uint32_t revision, pad;
	efi_handle in_handle;
	void *in;
	efi_handle out_handle;
	void *out;
	efi_handle error_handle;
	void *error;
	struct efi_runtime_services *runtime;
	struct efi_boot_services *boot;
	uint64_t tables_count;
	struct efi_table *tables;
};

/* EFI_GRAPHICS_OUTPUT_PROTOCOL, and what its mode points to. */
struct efi_graphics_info {
	uint32_t version, width, height, format, masks[4], line; /* line: pixels from one to the next */
};

struct efi_graphics_mode {
	uint32_t modes, mode;
	const struct efi_graphics_info *info;
	uint64_t info_size, base, size;
};

struct efi_graphics {
	void *query_mode;
	EFI_FN(set_mode, struct efi_graphics *graphics, uint32_t mode);
	EFI_FN(blt, struct efi_graphics *graphics, const void *buffer, uint32_t operation, uint64_t from_x,
	       uint64_t from_y, uint64_t x, uint64_t y, uint64_t width, uint64_t height, uint64_t delta);
	const struct efi_graphics_mode *mode;
};

/* EFI_LOADED_IMAGE_PROTOCOL */
struct efi_loaded_image {
	uint32_t revision, pad;
	efi_handle parent;
	struct efi_system *system;
	efi_handle device;
	void *path, *reserved;
	uint32_t options_size, pad2;
	const uint16_t *options;
};

#endif
