/* SPDX-License-Identifier: MIT */
/* The loaders' front: open, load, close. */
#include <errno.h>

#include "internal.h"

static int check_lost(const struct kernel_image *img, int rc, char *err, size_t errlen)
{
	if (!img->map.lost)
		return rc;
	return loader_fail(err, errlen, -EIO, "shrank or could not be read while it was being loaded");
}

int loader_open(struct kernel_image *img, const char *path, char *err, size_t errlen)
{
	int rc;

	*img = (struct kernel_image){ .kind = KERNEL_BZIMAGE };
	rc = file_map_open(&img->map, path, err, errlen);
	if (rc)
		return rc;
	rc = loader_sniff(img->map.data, img->map.size, &img->kind, err, errlen);
	if (!rc && img->kind == KERNEL_BZIMAGE)
		rc = bzimage_check(img->map.data, img->map.size, &img->bz, err, errlen);
	rc = check_lost(img, rc, err, errlen);
	if (rc)
		file_map_close(&img->map);
	return rc;
}

int loader_load(struct kernel_image *img, const struct ram_view *ram, const struct load_options *opt,
		struct load_result *res, char *err, size_t errlen)
{
	int rc;

	*res = (struct load_result){ 0 };
	if (img->kind == KERNEL_BZIMAGE)
		rc = bzimage_load(img, ram, opt, res, err, errlen);
	else
		rc = elf_load(img, ram, opt, res, err, errlen);
	return check_lost(img, rc, err, errlen);
}

void loader_close(struct kernel_image *img)
{
	file_map_close(&img->map);
}
