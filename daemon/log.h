/* SPDX-License-Identifier: GPL-2.0 */
/* The daemon's log: lines on stderr with sd-daemon priority prefixes when journald reads it. */
#ifndef CKPT_LOG_H
#define CKPT_LOG_H

#include <syslog.h>

/* Lines above this syslog priority are dropped; LOG_INFO unless set. */
void log_set_level(int priority);
/* As in the configuration: err, warning, info, debug. */
void log_set_level_name(const char *name);

void log_line(int priority, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_err(...) log_line(LOG_ERR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
