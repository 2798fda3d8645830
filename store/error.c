#include "store/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *fsnap_code_name(int code)
{
	switch (code) {
#define X(number, name, meaning) \
	case number:             \
		return #name;
		FSNAP_CODES(X)
#undef X
	}
	return "UNKNOWN";
}

const char *fsnap_code_meaning(int code)
{
	switch (code) {
#define X(number, name, meaning) \
	case number:             \
		return meaning;
		FSNAP_CODES(X)
#undef X
	}
	return "an error this version does not know";
}

int fail(struct fsnap_error *err, int code, int sys, const char *format, ...)
{
	if (!err || error_is_set(err))
		return -1;
	err->code = code;
	err->sys = sys;
	err->hint[0] = '\0';
	va_list args;
	va_start(args, format);
	vsnprintf(err->message, sizeof(err->message), format, args);
	va_end(args);
	if (sys) {
		size_t used = strlen(err->message);
		snprintf(err->message + used, sizeof(err->message) - used, ": %s", strerror(sys));
	}
	return -1;
}

int error_of_name(int sys)
{
	bool misnamed = sys == ENOENT || sys == EEXIST || sys == ENOTDIR || sys == EISDIR || sys == EACCES ||
			sys == EROFS || sys == ELOOP || sys == ENAMETOOLONG;
	return misnamed ? FSNAP_E_USAGE : FSNAP_E_SYSTEM;
}

int error_hint(struct fsnap_error *err, const char *format, ...)
{
	if (!err)
		return -1;
	va_list args;
	va_start(args, format);
	vsnprintf(err->hint, sizeof(err->hint), format, args);
	va_end(args);
	return -1;
}

int error_context(struct fsnap_error *err, const char *format, ...)
{
	if (!err)
		return -1;
	char joined[sizeof(err->message)];
	va_list args;
	va_start(args, format);
	int used = vsnprintf(joined, sizeof(joined), format, args);
	va_end(args);
	if (used < 0 || (size_t)used >= sizeof(joined))
		used = (int)strlen(joined);
	if (strncmp(err->message, joined, (size_t)used) == 0 && err->message[used] == ':')
		return -1; /* it says so already */
	snprintf(joined + used, sizeof(joined) - (size_t)used, ": %.*s",
		 (int)(sizeof(err->message) - 3), err->message);
	memcpy(err->message, joined, sizeof(joined));
	return -1;
}
