/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The vault: a socket whose other end ckpt-init has, with the userfaultfds of all processes in it, as messages
 * that nobody receives.  They stay open until init closes its end; see lazy_spec.h.
 */
#ifndef CKPT_LAZY_VAULT_H
#define CKPT_LAZY_VAULT_H

#include <stddef.h>

struct lazy_vault {
	int in;                         /* our end */
	size_t count;                   /* of messages */
};

/* A new one, empty; *other is the end that is to be sent. 0 or -errno, all of them. */
int lazy_vault_make(struct lazy_vault *vault, int *other);
/* -EAGAIN: it is full. */
int lazy_vault_add(struct lazy_vault *vault, int fd);
/* Init keeps it in place of the one before; other is closed. */
int lazy_vault_send(int other);
void lazy_vault_close(struct lazy_vault *vault);

#endif
