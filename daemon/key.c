// SPDX-License-Identifier: GPL-2.0
#include "key.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"

#define MAKE_ONE "make it once and copy it to all nodes: ckptctl key new"

void keys_wipe(struct keys *keys)
{
	seal_wipe(keys, sizeof(*keys));
}

static int check_file(int fd, const char *path, struct stat *st, struct problem *problem)
{
	if (fd < 0 || fstat(fd, st))
		return problem_set(problem, errno, "cannot read the cluster key %s: %s; " MAKE_ONE, path,
				   strerror(errno));
	if (!S_ISREG(st->st_mode) || !st->st_size || st->st_size % SEAL_KEY_BYTES ||
	    st->st_size > KEYS_MAX * SEAL_KEY_BYTES)
		return problem_set(problem, EINVAL, "the cluster key %s has %lld bytes, instead of 32, or 32 "
				   "for each of at most %d keys", path, (long long)st->st_size, KEYS_MAX);
	/* The tools' tests are not root. */
	if ((st->st_uid && st->st_uid != geteuid()) || st->st_mode & 077)
		return problem_set(problem, EPERM, "the cluster key %s can be read by others than root: "
				   "chown root %s && chmod 600 %s, and make a new one if it was so for long",
				   path, path, path);
	return 0;
}

static bool key_is_zero(const uint8_t key[SEAL_KEY_BYTES])
{
	static const uint8_t zero[SEAL_KEY_BYTES];

	return seal_equal(key, zero, SEAL_KEY_BYTES);
}

static int check_keys(const struct keys *keys, const char *path, struct problem *problem)
{
	unsigned int i, j;

	for (i = 0; i < keys->count; i++) {
		if (key_is_zero(keys->list[i]))
			return problem_set(problem, EINVAL, "the cluster key %s is all zero, which is no secret: "
					   "remove it, and " MAKE_ONE, path);
		for (j = 0; j < i; j++)
			if (seal_equal(keys->list[i], keys->list[j], SEAL_KEY_BYTES))
				return problem_set(problem, EINVAL, "the cluster key %s has the same key twice",
						   path);
	}
	return 0;
}

int keys_read(struct keys *keys, const char *path, struct problem *problem)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	int err = check_file(fd, path, &st, problem);

	*keys = (struct keys){ 0 };
	if (err)
		return err;
	if (read(fd, keys->list, st.st_size) != st.st_size)
		return problem_set(problem, EIO, "cannot read the cluster key %s", path);
	keys->count = st.st_size / SEAL_KEY_BYTES;
	err = check_keys(keys, path, problem);
	if (err)
		keys_wipe(keys);
	return err;
}

static int write_new(const struct keys *keys, const char *path)
{
	size_t length = keys->count * SEAL_KEY_BYTES;
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	if (write(fd, keys->list, length) != (ssize_t)length)
		return -EIO;
	return fsync(fd) ? -errno : 0;
}

static int sync_directory_of(const char *path)
{
	char copy[PATH_MAX];
	cleanup_close int fd = -1;

	snprintf(copy, sizeof(copy), "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) ? -errno : 0;
}

int keys_write(const struct keys *keys, const char *path, struct problem *problem)
{
	char new[PATH_MAX];
	int err;

	snprintf(new, sizeof(new), "%s.new", path);
	unlink(new);
	err = write_new(keys, new);
	if (!err && rename(new, path))
		err = -errno;
	if (!err)
		err = sync_directory_of(path);
	if (err) {
		unlink(new);
		return problem_set(problem, -err, "cannot write the cluster key %s: %s", path,
				   strerror(-err));
	}
	return 0;
}

void key_id(char id[KEY_ID_BYTES], const uint8_t key[SEAL_KEY_BYTES])
{
	uint8_t check[SEAL_CHECK_BYTES];

	seal_check_value(check, key);
	seal_key_name(id, check);
}

int keys_find(const struct keys *keys, const char *id, struct problem *problem)
{
	char found[KEY_ID_BYTES];
	int index = -1;
	unsigned int i;

	for (i = 0; i < keys->count; i++) {
		key_id(found, keys->list[i]);
		if (strncmp(found, id, strlen(id)))
			continue;
		if (index >= 0)
			return problem_set(problem, EINVAL, "several keys' names start with '%s'", id);
		index = i;
	}
	return index >= 0 && *id ? index :
		problem_set(problem, ENOENT, "there is no key '%s'; 'ckptctl key list' shows them", id);
}

int keys_new(struct keys *keys, struct problem *problem)
{
	if (keys->count == KEYS_MAX)
		return problem_set(problem, E2BIG, "there are %d keys already: remove those that nothing is "
				   "sealed with any more", KEYS_MAX);
	seal_random(keys->list[keys->count++], SEAL_KEY_BYTES);
	return 0;
}

void keys_use(struct keys *keys, unsigned int index)
{
	uint8_t key[SEAL_KEY_BYTES];

	memcpy(key, keys->list[index], sizeof(key));
	memmove(keys->list[1], keys->list[0], index * sizeof(key));
	memcpy(keys->list[0], key, sizeof(key));
	seal_wipe(key, sizeof(key));
}

void keys_remove(struct keys *keys, unsigned int index)
{
	keys->count--;
	memmove(keys->list[index], keys->list[index + 1], (keys->count - index) * SEAL_KEY_BYTES);
	seal_wipe(keys->list[keys->count], SEAL_KEY_BYTES);
}
