/* SPDX-License-Identifier: GPL-2.0 */
/* What the configuration's parts share: keys (config_keys.c), files (config_parse.c), the whole. */
#ifndef CKPT_CONFIG_PRIVATE_H
#define CKPT_CONFIG_PRIVATE_H

#include <stdbool.h>

#include "config.h"

#define SECTION_KEYS_MAX 64
#define CLASS_NAME_MAX 32
#define CLASSES_MAX 256
#define IMDS_ENDPOINT "http://169.254.169.254"
#define IMDS_VARIABLE "AWS_EC2_METADATA_SERVICE_ENDPOINT"

enum value_type {
	VALUE_DURATION,              /* into an unsigned int, milliseconds; up to 49 days */
	VALUE_LONG_DURATION,         /* into a uint64_t, milliseconds */
	VALUE_SIZE,                  /* into a uint64_t, bytes */
	VALUE_COUNT,                 /* into an unsigned int */
	VALUE_TEXT,                  /* into a char * */
};

/* What a reload does with a new value. */
enum reload {
	RELOAD_AT_ONCE,              /* in running jobs: with their next step */
	RELOAD_NEW_JOBS,             /* a running job keeps the one that it began with */
	RELOAD_NEVER,                /* only a start of ckptd does */
};

struct key {
	const char *name;
	enum value_type type;
	size_t offset;
	enum reload reload;
	uint64_t min, max;
	bool zero;                   /* 0 is allowed besides min..max */
	bool automatic;              /* so is "auto": CONFIG_AUTO */
	bool required;
	const char *fallback;        /* the default as text; NULL: the field stays NULL */
	const char *fallback_words;  /* what the manual says instead */
	const char *allowed;         /* of a text: what check accepts */
	bool (*check)(const char *value);
	const char *meaning;
	const char *reason;          /* for the default, or for the range */
};

struct section {
	const char *name;
	const struct key *keys;
	size_t key_count;
	size_t origins;              /* offset */
};

extern const struct section daemon_section, class_section;

const struct key *section_find_key(const struct section *section, const char *name);
int section_set_defaults(const struct section *section, void *target);
void section_free(const struct section *section, void *target);
struct origins *section_origins(const struct section *section, const void *target);
/* 0; -EINVAL: not valid; -ERANGE; -ENOMEM. */
int key_set(const struct key *key, void *target, const char *value);
/* The value as it would be written, allocated; NULL: it has none, or no memory. */
char *key_value(const struct key *key, const void *target);
/* What may be written: "a duration from 1s to 1h with its unit (ms, s, m, h, d), or 0". */
void key_allowed(const struct key *key, char *text, size_t size);

/* Reads one file into the configuration. */
int config_parse(struct config *config, const char *path, struct problem *problem);
int config_add_class(struct config *config, const char *name, const char *place);

#endif
