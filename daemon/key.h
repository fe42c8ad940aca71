/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The cluster's keys: one file, the same on all nodes, from which the keys of all objects are made.
 *
 *   /etc/ckpt/key:   0  u8[32]  the key that seals, and opens
 *                   32  u8[32]  more keys that only open: older ones, or one that is to come
 *                               ... 16 keys at most
 *
 * The file is valid if and only if it is a regular file of root's that nobody else can read or write,
 * has 1 to 16 times 32 bytes, no key is all zero and no two are alike.
 *
 * A key changes in steps, each on all nodes before the next, so that no node ever meets what it
 * cannot open:
 *
 *   ckptctl key new          A     -> A B    every node can open what B will seal
 *   ckptctl key use B        A B   -> B A    B seals; what A sealed still opens
 *   ckptctl key remove A     B A   -> B      once ckptctl verify finds nothing of A any more
 */
#ifndef CKPT_KEY_H
#define CKPT_KEY_H

#include "problem.h"
#include "seal.h"

#define KEYS_MAX 16
#define KEY_ID_BYTES 17

struct keys {
	unsigned int count;
	uint8_t list[KEYS_MAX][SEAL_KEY_BYTES]; /* the first seals */
};

int keys_read(struct keys *keys, const char *path, struct problem *problem);
/* Replaces the file durably; whoever reads it has the old keys or the new ones. */
int keys_write(const struct keys *keys, const char *path, struct problem *problem);
void keys_wipe(struct keys *keys);

/* How people name a key: 16 hexadecimal digits that say nothing about it. */
void key_id(char id[KEY_ID_BYTES], const uint8_t key[SEAL_KEY_BYTES]);
/* The index of the one key whose id starts so, or -ENOENT, or -EINVAL when several do. */
int keys_find(const struct keys *keys, const char *id, struct problem *problem);
int keys_new(struct keys *keys, struct problem *problem);
void keys_use(struct keys *keys, unsigned int index);
void keys_remove(struct keys *keys, unsigned int index);

#endif
