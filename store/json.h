/*
 * json.h - writes JSON to a stream as it goes.
 *
 * Why not a library: all that is needed is writing, in order, what fits no tree in memory (the
 * records of a large image), and that is these hundred lines.
 *
 *	struct json json = json_start(stdout, true);
 *	json_object(&json);
 *	json_u64(json_key(&json, "pid"), 42);
 *	json_close(&json);
 *	json_finish(&json);
 */
#ifndef STORE_JSON_H
#define STORE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH 48

struct json {
	FILE *out;
	bool pretty;
	bool after_key;
	unsigned depth;
	struct {
		char end;   /* '}' or ']' */
		bool begun; /* has a member already */
	} level[JSON_DEPTH];
};

struct json json_start(FILE *out, bool pretty);

/* Ends the line; 0, or -1 with errno where the stream has failed on the way. */
int json_finish(struct json *json);

/* Opens what json_close() closes. */
void json_object(struct json *json);
void json_array(struct json *json);
void json_close(struct json *json);

/* The name of the next value; returns json. */
struct json *json_key(struct json *json, const char *key);

void json_u64(struct json *json, uint64_t value);
void json_i64(struct json *json, int64_t value);
void json_bool(struct json *json, bool value);
void json_null(struct json *json);

/* Bytes that are no UTF-8, which file names may hold, become U+FFFD. NULL becomes null. */
void json_string(struct json *json, const char *text);

/* Short ones as a string of hexadecimal digits, others as {"bytes": length}. */
void json_bytes(struct json *json, const void *bytes, size_t length);

#endif
