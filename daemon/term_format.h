/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The content of a term object (object.h), which is one block of kind term (block.h):
 *
 *    0  u8[64]  node, zero-terminated
 *   64  u8[64]  base: name of a manifest of an older term, or empty; zero-terminated
 *
 * A term object is valid if and only if (1) the object is, and has one block, of kind term; (2) its
 * content has 128 bytes; (3) both texts end in a zero; (4) base is empty or the name of a manifest
 * whose term is less than this one.
 *
 * The lease is not in the object: it is the time of its last change, by the server's clock (store.h).
 */
#ifndef CKPT_TERM_FORMAT_H
#define CKPT_TERM_FORMAT_H

#include "block.h"

#define TERM_NODE_BYTES 64
#define TERM_BASE_BYTES 64
#define TERM_BYTES (TERM_NODE_BYTES + TERM_BASE_BYTES)
#define TERM_STORED_MAX (BLOCK_HEADER_BYTES + TERM_BYTES + SEAL_TAG_BYTES)

#endif
