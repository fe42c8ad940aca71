/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Timers that CRIU saves and would not restore, in its images:
 *
 *	files.img       a periodic timerfd that has expired and was not read yet.  The kernel arms it again when
 *	                it is read, so nothing is left of its period, which CRIU (up to 4.2) takes for "not armed":
 *	                restored, it would tell once more and never again.  It gets 1 ns, and so expires at once.
 *	core-PID.img    setitimer() and alarm() without an interval: dropped by CRIU before 4.1.  It gets one of
 *	                ten years.
 *
 *   files.img       u32 0x54564319, u32 0x56303138, then records file_entry
 *   core-PID.img    u32 0x54564319, u32 0x55053847, then one record core_entry
 *
 * A record is a u32 size and that many bytes of protobuf.
 */
#ifndef CKPT_IMAGE_TIMERS_H
#define CKPT_IMAGE_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "criu.h"
#include "problem.h"

/* The images as CRIU left them. */
int image_timers_mend(const char *directory, const struct criu_version *version, struct problem *problem);

/* Of the content of a files.img, in place: how many timers were mended; -EBADMSG. */
int image_timers_mend_files(uint8_t *bytes, size_t length);
/* The same for a core image, which gets longer: mended is to be freed. */
int image_timers_mend_core(const uint8_t *bytes, size_t length, char **mended, size_t *mended_length);

#endif
