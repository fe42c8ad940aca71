/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Reads blocks from segments, for one thread: what it takes to open them, and the segments that it
 * used lately.  Only opening a segment is done with the store user's ids.
 */
#ifndef CKPT_SEGMENT_READER_H
#define CKPT_SEGMENT_READER_H

#include "object.h"
#include "packed_file.h"
#include "pagemap_private.h"

struct segment_reader;

/* NULL when memory is out. */
struct segment_reader *segment_reader_create(struct store *store);
void segment_reader_destroy(struct segment_reader *reader);
/* Segments are opened anew: those that are open may be of a storage that was away meanwhile. */
void segment_reader_forget(struct segment_reader *reader);
/* plain has BLOCK_PLAIN_BYTES and gets the pages and their hashes. */
int segment_reader_block(struct segment_reader *reader, const struct block *block, uint8_t *plain,
			 struct problem *problem);
int segment_reader_file_block(struct segment_reader *reader, const struct packed_file *file,
			      const struct file_block *block, uint8_t *plain,
			      struct problem *problem);
/* Lets the storage begin to read what will be asked for soon. */
void segment_reader_announce(struct segment_reader *reader, const struct block *block);

#endif
