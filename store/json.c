#include "store/json.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#define HEX_MAX 32 /* bytes worth showing */

struct json json_start(FILE *out, bool pretty)
{
	return (struct json){.out = out, .pretty = pretty};
}

int json_finish(struct json *json)
{
	assert(json->depth == 0);
	putc('\n', json->out);
	return fflush(json->out) == 0 && !ferror(json->out) ? 0 : -1;
}

static void new_line(struct json *json)
{
	if (json->pretty)
		fprintf(json->out, "\n%*s", (int)(2 * json->depth), "");
}

/* What stands between the value before and the one that follows. */
static void separate(struct json *json)
{
	if (json->after_key) {
		json->after_key = false;
		return;
	}
	if (json->depth == 0)
		return;
	if (json->level[json->depth - 1].begun)
		putc(',', json->out);
	json->level[json->depth - 1].begun = true;
	new_line(json);
}

static void open_level(struct json *json, char begin, char end)
{
	separate(json);
	assert(json->depth < JSON_DEPTH);
	putc(begin, json->out);
	json->level[json->depth].end = end;
	json->level[json->depth].begun = false;
	json->depth++;
}

void json_object(struct json *json)
{
	open_level(json, '{', '}');
}

void json_array(struct json *json)
{
	open_level(json, '[', ']');
}

void json_close(struct json *json)
{
	assert(json->depth > 0 && !json->after_key);
	json->depth--;
	if (json->level[json->depth].begun)
		new_line(json);
	putc(json->level[json->depth].end, json->out);
}

/* Length of the UTF-8 sequence at `text` by RFC 3629; 0: it is none. */
static size_t utf8_length(const unsigned char *text)
{
	static const struct {
		unsigned char mask, lead, low, high; /* bounds of the second byte */
		size_t length;
	} forms[] = {
		{0x80, 0x00, 0x00, 0x00, 1}, {0xff, 0xe0, 0xa0, 0xbf, 3},
		{0xff, 0xed, 0x80, 0x9f, 3}, {0xff, 0xf0, 0x90, 0xbf, 4},
		{0xff, 0xf4, 0x80, 0x8f, 4}, {0xe0, 0xc0, 0x80, 0xbf, 2},
		{0xf0, 0xe0, 0x80, 0xbf, 3}, {0xfc, 0xf0, 0x80, 0xbf, 4},
	};
	if (text[0] == 0xc0 || text[0] == 0xc1)
		return 0;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if ((text[0] & forms[i].mask) != forms[i].lead)
			continue;
		if (forms[i].length > 1 && (text[1] < forms[i].low || text[1] > forms[i].high))
			return 0;
		for (size_t at = 2; at < forms[i].length; at++)
			if ((text[at] & 0xc0) != 0x80)
				return 0;
		return forms[i].length;
	}
	return 0;
}

static void put_text(FILE *out, const char *text)
{
	static const char escaped[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
	putc('"', out);
	while (*text) {
		const char *special = strchr(escaped, *text);
		size_t length = utf8_length((const unsigned char *)text);
		if (special)
			fprintf(out, "\\%c", letter[special - escaped]);
		else if ((unsigned char)*text < 0x20 || *text == 0x7f)
			fprintf(out, "\\u%04x", (unsigned char)*text);
		else if (length == 0)
			fputs("\\ufffd", out);
		else
			fwrite(text, 1, length, out);
		text += length ? length : 1;
	}
	putc('"', out);
}

struct json *json_key(struct json *json, const char *key)
{
	separate(json);
	put_text(json->out, key);
	fputs(json->pretty ? ": " : ":", json->out);
	json->after_key = true;
	return json;
}

void json_u64(struct json *json, uint64_t value)
{
	separate(json);
	fprintf(json->out, "%" PRIu64, value);
}

void json_i64(struct json *json, int64_t value)
{
	separate(json);
	fprintf(json->out, "%" PRId64, value);
}

void json_bool(struct json *json, bool value)
{
	separate(json);
	fputs(value ? "true" : "false", json->out);
}

void json_null(struct json *json)
{
	separate(json);
	fputs("null", json->out);
}

void json_string(struct json *json, const char *text)
{
	if (!text) {
		json_null(json);
		return;
	}
	separate(json);
	put_text(json->out, text);
}

void json_bytes(struct json *json, const void *bytes, size_t length)
{
	if (length > HEX_MAX) {
		json_object(json);
		json_u64(json_key(json, "bytes"), length);
		json_close(json);
		return;
	}
	char hex[2 * HEX_MAX + 1] = "";
	for (size_t i = 0; i < length; i++)
		snprintf(hex + 2 * i, 3, "%02x", ((const unsigned char *)bytes)[i]);
	json_string(json, hex);
}
