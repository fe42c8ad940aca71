/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The content of a manifest object: the contents of its blocks (object.h, block.h), one after the
 * other, are
 *
 *   number      meaning (varints, bytes.h, unless a length in bytes is given)
 *   u8[8]       magic "CKPTMAN1"
 *   S           segments, then each: term, number; sorted, no two alike
 *   M           bytes of meta, then meta
 *   F           files, then each: bytes of name, name, segment + 1 (0: none), number of blocks, then
 *               of each: content length, stored length (0: all zero), offset unless stored length is 0
 *   B           blocks of pages, then each: segment, zigzag(offset - end of the block before, if that
 *               is in the same segment, else - 0), stored length, pages
 *   P           spaces, then each: kind, id, pages, then runs up to one of 0 pages:
 *                 pages of the run
 *                 pages between the end of the run before (or 0) and the run
 *                 0: zero pages, or 1 + zigzag(block - block of the run before in this space, or - 0)
 *                 index of the first page in the block, unless zero pages
 *   u8[8]       magic "CKPTEND1"
 *
 *   space        ---++++++++++--------++++000---    two runs in blocks, one of zero pages
 *
 * A manifest is valid if and only if (1) the object is, and its blocks are of kind manifest; (2) all
 * the numbers above are there, none is cut by the end, nothing follows; (3) segments, names, blocks
 * and spaces are within the bounds of manifest_read.c; (4) each segment or block that is named exists
 * in the lists before; (5) a file's blocks are of at most 262144 bytes, and only the last is shorter;
 * (6) kind and id of the spaces go up; (7) runs in blocks do not pass the end of their block or 2^63
 * bytes; (8) the pages of a space's runs are as many as the space says.
 *
 * A run of zero pages says in a few bytes what the map needs 22 bytes a page for: a reader refuses
 * what has more pages than its node can hold, before it makes room for them.
 *
 * There are no page hashes here: 16 bytes a page would make each checkpoint of a large job write
 * hundreds of megabytes while the job is frozen.  They are in the blocks, with their pages.
 */
#ifndef CKPT_MANIFEST_FORMAT_H
#define CKPT_MANIFEST_FORMAT_H

#define MANIFEST_MAGIC "CKPTMAN1"
#define MANIFEST_END "CKPTEND1"
#define MANIFEST_MAGIC_BYTES 8
#define MANIFEST_META_MAX (64u << 20)

#include "object.h"

/* Reads the segments of a manifest: what cleaning has to keep. Caller has entered the store. */
int manifest_segments(struct store *store, const struct object_id *id,
		      struct object_list *segments, struct problem *problem);

#endif
