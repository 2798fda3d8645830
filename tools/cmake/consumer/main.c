/*
 * What a user of libfsnap writes first: asks its version, and asks for something it must refuse.
 */
#include <fsnap/fsnap.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	struct fsnap_error err = { 0 };
	struct fsnap_restore_options options = {
		.size = sizeof(options),
		.store = "/nonexistent/store",
		.image = "no-such-image",
	};
	struct fsnap_restore_report report = { .size = sizeof(report) };

	printf("libfsnap %s\n", fsnap_version());
	if (fsnap_restore(&options, &report, &err) != -1) {
		fprintf(stderr, "expected a refusal, got a restored tree\n");
		return 1;
	}
	printf("%s: %s\n", fsnap_code_name(err.code), err.message);
	return strcmp(fsnap_code_name(err.code), "OK") == 0 || err.message[0] == '\0';
}
