/*
 * test_store_json.c - what `fsnap inspect` prints is JSON, whatever an image holds.
 *
 * Shown: escaping, nesting, both layouts; every record as its own fields; the state of an open
 * file decoded by its kind, and shown by its size where it does not decode.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image_json.h"
#include "store/json.h"

#include <cmocka.h>

static char *text;
static size_t text_length;

static struct json begin(bool pretty)
{
	return json_start(open_memstream(&text, &text_length), pretty);
}

static void expect(struct json *json, const char *expected)
{
	assert_int_equal(json_finish(json), 0);
	fclose(json->out);
	assert_string_equal(text, expected);
	free(text);
}

static void nesting(void **state)
{
	(void)state;
	for (int pretty = 0; pretty < 2; pretty++) {
		struct json json = begin(pretty);
		json_object(&json);
		json_u64(json_key(&json, "n"), UINT64_MAX);
		json_array(json_key(&json, "list"));
		json_i64(&json, INT64_MIN);
		json_bool(&json, true);
		json_null(&json);
		json_object(&json);
		json_close(&json);
		json_close(&json);
		json_array(json_key(&json, "none"));
		json_close(&json);
		json_close(&json);
		expect(&json, pretty ? "{\n  \"n\": 18446744073709551615,\n  \"list\": [\n"
				       "    -9223372036854775808,\n    true,\n    null,\n    {}\n  ],\n"
				       "  \"none\": []\n}\n"
				     : "{\"n\":18446744073709551615,\"list\":"
				       "[-9223372036854775808,true,null,{}],\"none\":[]}\n");
	}
}

static void strings(void **state)
{
	(void)state;
	static const struct {
		const char *text, *json;
	} cases[] = {
		{"", "\"\"\n"},
		{"a\"b\\c/d", "\"a\\\"b\\\\c/d\"\n"},
		{"\b\f\n\r\t\x01\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\"\n"},
		{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"\n"},
		{"x\xffy\xc0\xafz", "\"x\\ufffdy\\ufffd\\ufffdz\"\n"}, /* overlong */
		{"\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"\n"},	 /* a surrogate */
		{"\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\"\n"}, /* beyond Unicode */
		{"\xe2\x82", "\"\\ufffd\\ufffd\"\n"},		 /* cut short */
		{NULL, "null\n"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct json json = begin(false);
		json_string(&json, cases[i].text);
		expect(&json, cases[i].json);
	}
}

static void bytes(void **state)
{
	(void)state;
	char many[33] = "";
	struct json json = begin(false);
	json_array(&json);
	json_bytes(&json, "\x00\xfe", 2);
	json_bytes(&json, "", 0);
	json_bytes(&json, many, sizeof(many));
	json_close(&json);
	expect(&json, "[\"00fe\",\"\",{\"bytes\":33}]\n");
}

static void a_file_and_its_state(void **state)
{
	(void)state;
	char encoded[64];
	image_file_eventfd eventfd = {.count = 7, .semaphore = 1};
	XDR xdr;
	xdrmem_create(&xdr, encoded, sizeof(encoded), XDR_ENCODE);
	assert_true(xdr_image_file_eventfd(&xdr, &eventfd));
	image_file file = {.id = 3, .kind = "eventfd", .owner = -5, .label = "anon_inode:[eventfd]"};
	file.state.state_val = encoded;
	file.state.state_len = xdr_getpos(&xdr);

	static const char front[] = "{\"id\":3,\"kind\":\"%s\",\"flags\":0,\"pos\":0,\"owner\":-5,"
				    "\"signo\":0,\"label\":\"anon_inode:[eventfd]\",\"state\":%s,"
				    "\"owner_tid\":0,\"hint\":0,\"locks\":[]}\n";
	static const struct {
		char *kind;
		const char *state;
	} cases[] = {
		{"eventfd", "{\"count\":7,\"semaphore\":1,\"id\":0}"},
		{"pipe", "\"00000000000000070000000100000000\""},    /* does not decode as one */
		{"unheard", "\"00000000000000070000000100000000\""}, /* no such kind */
	};
	for (size_t i = 0; i < 3; i++) {
		char expected[300];
		snprintf(expected, sizeof(expected), front, cases[i].kind, cases[i].state);
		file.kind = cases[i].kind;
		struct json json = begin(false);
		image_json_image_file(&json, &file);
		expect(&json, expected);
	}
}

static void a_vma(void **state)
{
	(void)state;
	image_vma vma = {.start = 4096, .end = 8192, .kind = VMA_SHARED, .name = "[heap]"};
	struct json json = begin(false);
	image_json_image_vma(&json, &vma);
	expect(&json, "{\"start\":4096,\"end\":8192,\"offset\":0,\"prot\":0,\"flags\":0,"
		      "\"kind\":\"shared\",\"object\":0,\"advice\":0,\"name\":\"[heap]\",\"pkey\":0}\n");
}

/* The reader takes the kinds from IMAGE_TREE to IMAGE_LABELS as known: so does the table. */
static void tables(void **state)
{
	(void)state;
	for (uint32_t kind = IMAGE_TREE; kind <= IMAGE_LABELS; kind++) {
		const struct image_record_kind *record = image_record_kind(kind);
		assert_non_null(record);
		assert_int_equal(record->kind, kind);
	}
	assert_null(image_record_kind(IMAGE_TREE - 1));
	assert_null(image_record_kind(IMAGE_LABELS + 1));
	assert_string_equal(image_record_kind(IMAGE_MM)->name, "mm");
	assert_int_equal(image_record_kind(IMAGE_MM)->size, sizeof(image_mm));

	const struct image_file_kind *pipe = image_file_kind("pipe");
	assert_non_null(pipe);
	assert_int_equal(pipe->size, sizeof(image_file_pipe));
	assert_ptr_equal(pipe->xdr, xdr_image_file_pipe);
	assert_null(image_file_kind("no such kind"));
}

/* Zeroed records of every kind, as a decoder may hand them out, print. */
static void every_record(void **state)
{
	(void)state;
	for (uint32_t kind = IMAGE_TREE; kind <= IMAGE_LABELS; kind++) {
		const struct image_record_kind *record = image_record_kind(kind);
		void *object = calloc(1, record->size);
		if (kind == IMAGE_FILE)
			((image_file *)object)->kind = "pipe";
		struct json json = begin(true);
		record->json(&json, object);
		assert_int_equal(json_finish(&json), 0);
		fclose(json.out);
		assert_int_equal(text[0], '{');
		assert_int_equal(text[text_length - 2], '}');
		free(text);
		free(object);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nesting),	  cmocka_unit_test(strings),
		cmocka_unit_test(bytes),	  cmocka_unit_test(a_file_and_its_state),
		cmocka_unit_test(a_vma),	  cmocka_unit_test(tables),
		cmocka_unit_test(every_record),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
