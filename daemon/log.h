/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The daemon's log: lines on stderr; where that is the journal, entries of it, with these fields besides the
 * usual ones, as far as an entry is about such a thing:
 *	CKPT_JOB		UID-NAME
 *	CKPT_EPOCH		number of the epoch at work: of this job, since this ckptd has it
 *	CKPT_CHECKPOINT		name of the checkpoint at work
 * Nothing of a job's memory, environment or files is ever logged, nor of the key. Who says the same thing too often
 * is not heard: see rate.h.
 */
#ifndef CKPT_LOG_H
#define CKPT_LOG_H

#include <stdint.h>
#include <syslog.h>

/* Lines above this syslog priority are dropped; LOG_INFO unless set. */
void log_set_level(int priority);
/* As in the configuration: err, warning, info, debug. */
void log_set_level_name(const char *name);

/* What all that this thread logs from now on is about; "" and 0: nothing like that. */
void log_set_job(const char *id);
void log_set_epoch(uint64_t number);
void log_set_checkpoint(const char *name);

void log_line(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_err(...) log_line(LOG_ERR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
