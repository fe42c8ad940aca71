/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The two kinds of CRIU image that we write ourselves, little-endian, so that stock CRIU reads them:
 *
 *   inventory.img     u32 0x58313116, then one record inventory_entry
 *   pagemap-N.img     u32 0x54564319, u32 0x56084025, record pagemap_head, then records pagemap_entry
 *   pages-ID.img      the pages of the entries, one after the other, nothing else
 *
 * A record is a u32 size and that many bytes of protobuf.
 */
#ifndef CKPT_IMAGE_H
#define CKPT_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "pagemap.h"
#include "problem.h"

/* A directory with the inventory of an "earlier dump", made as of now. */
int inventory_write(const char *directory, struct problem *problem);

/* One space's pair of images. Pages must come in the order of address. */
struct image_writer {
	FILE *pagemap;
	int pages_fd;
	uint64_t run_start;     /* of the run that is being gathered; bytes */
	uint64_t run_end;
	bool run_lazy;
	uint8_t *buffer;
	size_t buffered;        /* bytes */
};

/* pages_id: unique within the directory, > 0. */
int image_open(struct image_writer *writer, const char *directory, enum space_kind kind, uint64_t id,
	       uint32_t pages_id, struct problem *problem);
int image_page(struct image_writer *writer, uint64_t address, const void *page);
/* One that comes after the restore: CRIU leaves its place empty. */
int image_lazy_page(struct image_writer *writer, uint64_t address);
/* Also after an error; 0 only if everything was written. */
int image_close(struct image_writer *writer);

#endif
