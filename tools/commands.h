/* SPDX-License-Identifier: GPL-2.0 */
/* The subcommands of ckptctl; each gets its own argc and argv and returns the exit status. */
#ifndef CKPT_COMMANDS_H
#define CKPT_COMMANDS_H

#include <stdbool.h>

#include <jansson.h>

int command_run(int argc, char **argv);
int command_status(int argc, char **argv);
int command_checkpoint(int argc, char **argv);
int command_logs(int argc, char **argv);
int command_drain(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_key(int argc, char **argv);
int command_export(int argc, char **argv);
int command_list(int argc, char **argv);
int command_show(int argc, char **argv);
int command_prune(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_config(int argc, char **argv);
int command_reload(int argc, char **argv);

/* For commands whose one option is --json: the index of the first argument, or -1. */
int parse_json(int argc, char **argv, bool *json, const char *usage);

/* Exit status for wrong usage, everywhere. */
#define STATUS_USAGE 2

/* Sends one request and waits for its answer; says on stderr what went wrong and returns NULL. */
json_t *ask(const json_t *request);
/* Takes the request over, prints the answer, and gives the command's exit status. */
int ask_and_show(json_t *request, bool json, void (*show)(const json_t *answer));
/* Prints a message for a person as "ckpt: …". */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The remedy when ckptd cannot be reached. */
void say_no_daemon(int err);
void print_json(const json_t *value);

#endif
