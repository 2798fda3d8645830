/*
 * fsnap/error.h - the one error contract of fsnap, public part.
 *
 * Every function that can fail takes a `struct fsnap_error *` as its last
 * argument, fills it before it returns -1 (or NULL), and leaves it untouched on
 * success.  The object belongs to the caller, holds no allocation, and may be
 * NULL where the caller does not care.  `code` is stable across releases: test
 * for it, never for the words of `message`.
 */
#ifndef FSNAP_ERROR_H
#define FSNAP_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(number, name, what it means) - numbers are never reused. */
#define FSNAP_CODES(X)                                                          \
	X(0, OK, "no error")                                                    \
	X(1, USAGE, "the call or command line is wrong")                        \
	X(2, SYSTEM, "a system call failed that should not have")               \
	X(3, NOMEM, "out of memory")                                            \
	X(10, NO_PROCESS, "there is no such process")                           \
	X(11, PERMISSION, "the caller may not do this")                         \
	X(12, TRACED, "another tracer holds the process")                       \
	X(13, UNSUPPORTED, "the process holds state that cannot be saved yet")  \
	X(14, TARGET_DIED, "the process ended while it was being saved")        \
	X(15, TARGET_BUSY, "the tree changes faster than it can be stopped")    \
	X(16, SELF, "fsnap cannot save itself or its own parents")              \
	X(30, STORE_MISSING, "the store does not exist and cannot be made")     \
	X(31, STORE_FULL, "there is no space left for the image")               \
	X(32, STORE_READONLY, "the store cannot be written")                    \
	X(33, IMAGE_MISSING, "there is no such image")                          \
	X(34, IMAGE_EXISTS, "an image of this name exists")                     \
	X(35, IMAGE_CORRUPT, "the image is damaged")                            \
	X(36, IMAGE_TRUNCATED, "the image is shorter than it says")             \
	X(37, IMAGE_FORMAT, "the image needs a newer fsnap, or is none")        \
	X(38, IMAGE_ARCH, "the image is of another architecture")               \
	X(39, IMAGE_CPU, "the image needs CPU features this machine lacks")     \
	X(40, IMAGE_OWNER, "the image belongs to somebody else")                \
	X(41, BAD_NAME, "not a usable image name")                              \
	X(42, STORE_IO, "reading or writing the store failed")                  \
	X(43, IMAGE_SIGNATURE, "the image is not signed by one who is trusted") \
	X(44, IMAGE_KEY, "the image is encrypted, and this is not its key")      \
	X(50, PID_TAKEN, "a process ID of the image is in use")                 \
	X(51, FILE_CHANGED, "a file differs from what the image recorded")      \
	X(52, FILE_MISSING, "a file of the image is not there")                 \
	X(53, ADDRESS_TAKEN, "a socket address of the image is in use")         \
	X(54, RESTORE_STEP, "a step of the restore plan failed")                \
	X(55, KERNEL_LACKS, "this kernel lacks something that is needed")       \
	X(56, FORBIDDEN, "a policy of this machine forbids what the image asks for")

enum fsnap_code {
#define X(number, name, meaning) FSNAP_E_##name = number,
	FSNAP_CODES(X)
#undef X
};

struct fsnap_error {
	int code;	     /* enum fsnap_code */
	int sys;	     /* errno behind it, 0 where there is none */
	char message[640];   /* process, object and cause, one line, no full stop */
	char hint[384];	     /* what the user can do next; "" where nothing helps */
};

/* "UNSUPPORTED" for FSNAP_E_UNSUPPORTED; "UNKNOWN" for numbers not in the table. */
const char *fsnap_code_name(int code);
const char *fsnap_code_meaning(int code);

#ifdef __cplusplus
}
#endif
#endif
